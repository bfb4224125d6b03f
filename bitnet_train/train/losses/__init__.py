"""What is minimised: cross-entropy, distillation from the frozen original, hidden states, attention."""
