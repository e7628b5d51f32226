"""Keys that Hugging Face may write into any config.json; none of them changes a language model's logits."""

BOILERPLATE = frozenset(
    """
    architectures auto_map model_type name_or_path _name_or_path _commit_hash transformers_version torch_dtype dtype
    torchscript use_bfloat16 tf_legacy_loss attn_implementation _attn_implementation _attn_implementation_autoset
    return_dict use_return_dict output_attentions output_hidden_states use_cache chunk_size_feed_forward pruned_heads
    is_decoder is_encoder_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder
    problem_type num_labels id2label label2id finetuning_task task_specific_params prefix tokenizer_class
    bos_token_id eos_token_id pad_token_id sep_token_id cls_token_id mask_token_id unk_token_id decoder_start_token_id
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    """.split()
)
