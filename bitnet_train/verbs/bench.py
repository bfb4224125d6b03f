"""`bitnet-train bench`: tokens per second of the packed model, beside a float model and llama.cpp."""

from __future__ import annotations

from bitnet_train.bench.contenders import contenders, llama_contenders
from bitnet_train.bench.facts import BenchFacts
from bitnet_train.bench.table import render_rows
from bitnet_train.bench.timing import Workload
from bitnet_train.config import Config
from bitnet_train.progress import open_console, track
from bitnet_train.run import assembly
from bitnet_train.run.directory import packed_folder
from bitnet_train.run.tracked import tell


def bench(config: Config) -> BenchFacts:
    """Measure the packed model in tokens per second, beside a float model and llama.cpp where they are named."""
    assembly.prepare_process(config)
    artefact, directory = packed_folder(config)
    settings = config.bench
    workload = Workload(settings.prompt_tokens, settings.new_tokens, settings.repeats, tuple(settings.contexts))
    ours = contenders(artefact, workload, settings.threads, settings.isas, settings.against)
    measures = [*ours, *llama_contenders(settings.gguf, settings.llama_bench, workload, settings.threads)]
    rows = tuple(measure() for measure in track(measures, "Measuring", len(measures)))
    title = f"{workload.prompt_tokens} tokens prefilled, {workload.new_tokens} decoded, medians of {workload.repeats}"
    open_console(config.quiet).print(render_rows(rows, title))
    facts = BenchFacts(workload, rows)
    tell(facts, config, directory)
    return directory.keep(facts) if directory is not None else facts
