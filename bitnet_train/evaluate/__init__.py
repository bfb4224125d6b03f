"""How good a 1-bit model is, measured on the same inputs as the model it was made from.

    rows = windows(text, tokenizer, 2048, overlap=False)     a text as rows of token ids
    perplexity(model, rows)                                  one number of one model
    compare(student, teacher, rows)                          perplexities, KL, agreement, confidence, rare tokens
    answer(model, tokenizer, questions)                      multiple choice by log-likelihood, the lm-eval way
    side_by_side(prompts, tokenizer, writers, ...)           what both models write, and how far it agrees

Each is a function of models and inputs that knows nothing of run directories: a script may call any of them on a model
that was never packed. `lm_eval_model` makes a packed folder a model of EleutherAI's lm-evaluation-harness.
"""
