from __future__ import annotations

import json

from bitnet_train.bench.facts import BenchFacts
from bitnet_train.bench.row import Memory, Row
from bitnet_train.bench.timing import Workload


def test_facts_have_the_workload_beside_the_rows_with_their_medians_and_come_back() -> None:
    row = Row("native", "avx2", 2, (10.0, 30.0), (4.0,), 0.25, Memory(1, None, 3), {"128": 1.5})
    facts = BenchFacts(Workload(8, 4, 2, (128,)), (row,))
    written = json.loads(json.dumps(facts.to_dict()))
    assert list(written) == ["prompt_tokens", "new_tokens", "repeats", "contexts", "rows"]
    assert written["rows"][0]["prefill_tokens_per_s"] == 20.0
    assert BenchFacts.from_dict(written) == facts
