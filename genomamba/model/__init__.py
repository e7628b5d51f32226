"""Models: ids in, hidden states or logits out. Imports with torch alone."""
