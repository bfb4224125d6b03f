from __future__ import annotations

from bitnet_train.config.continued import told


def test_a_secret_that_changes_is_said_without_its_words() -> None:
    said = told({"logger.custom": ({"api_key": "old-key"}, {"api_key": "new-key"}), "optimizer.lr": (0.1, 0.2)})
    assert said == "  logger.custom: {'api_key': '[redacted]'} -> {'api_key': '[redacted]'}\n  optimizer.lr: 0.1 -> 0.2"
