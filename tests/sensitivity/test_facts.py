from __future__ import annotations

import json
from dataclasses import replace

from bitnet_train.sensitivity.facts import Advice, SensitivityFacts
from bitnet_train.sensitivity.parts import Part
from bitnet_train.sensitivity.reference import Fidelity
from bitnet_train.sensitivity.scan import Result, Scan

CLOSE, FAR = Fidelity(0.1, 0.9, 10.0), Fidelity(2.5, 0.2, 99.0)
RESULT = Result(Part("family", "mlp.up_proj", ("a", "b")), 800, 100, 200, FAR, CLOSE, CLOSE)


def test_facts_have_the_scan_beside_the_advice_and_come_back() -> None:
    scan = Scan(64, 9.5, FAR, 100, (RESULT, replace(RESULT, ternary_bytes=None, ternary=None)))
    advice = Advice(150.0, 100, ({"pattern": "mlp.up_proj", "name": "ternary"},), "word", None)
    facts = SensitivityFacts("a model", "tiny", scan, advice)
    written = json.loads(json.dumps(facts.to_dict()))
    assert list(written) == [
        *("model", "source", "tokens", "perplexity", "everything", "planned_bytes", "results", "suggestion"),
    ]
    assert (written["results"][0]["bits_per_weight"], written["results"][0]["float_bytes"]) == (1.0, 1600)
    assert SensitivityFacts.from_dict(written) == facts
