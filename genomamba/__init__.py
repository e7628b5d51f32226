"""GenoMamba: character-level Mamba models for genomes."""

__version__ = "0.1.0"
