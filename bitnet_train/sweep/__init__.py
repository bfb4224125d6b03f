"""Many short runs over ranges of keys: what is asked, Optuna's study of it, a process a trial, what came of them."""
