"""What the machine decides, settled once a run: `precision` and `products` of `auto`, `num_threads=null`.

Kept in `facts/machine.json`. A run that is continued takes them from there, whatever machine it is continued on: other
arithmetic would be another run, and sums over another number of threads are rounded otherwise.
"""

from __future__ import annotations

import os
from dataclasses import replace

import torch
from rich.console import Console

from bitnet_train.config import Config, changed
from bitnet_train.model.quantized_linear import Products
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import MachineFacts
from bitnet_train.train.loop.machine import arithmetic, thread_count
from bitnet_train.train.loop.products import ProductChoice, choose_products
from bitnet_train.train.loop.settings import AUTO


def settle_machine(config: Config, directory: RunDirectory | None, console: Console) -> tuple[Config, MachineFacts]:
    """Return the configuration with precision, products and threads, and why; warn of bf16 that is only imitated.

    They are kept in `directory`. Threads that are asked for were set when the process was prepared; others are here.
    """
    kept = _kept(config, directory)
    trainer = config.trainer
    threads = trainer.num_threads or (kept.num_threads if kept is not None else thread_count(trainer.devices))
    if trainer.num_threads is None:
        torch.set_num_threads(threads)
    if trainer.devices > 1:  # what Lightning gives those that it starts, and sets for this one, where it finds nothing
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    asked = kept.arithmetic.precision if kept is not None and trainer.precision == AUTO else trainer.precision
    found = arithmetic(asked, trainer.accelerator)
    if (warning := found.warning()) is not None:
        console.print(f"note: {warning}", soft_wrap=True)
    products = _products(config, kept, found.precision)
    facts = MachineFacts(found, f"{found.describe()}; {products.describe()}", threads, products)
    if directory is not None and (kept is None or replace(facts, frame=kept.frame) != kept):
        directory.keep(facts)
    chosen = {"precision": found.precision, "products": products.name, "num_threads": threads}
    return changed(config, {f"trainer.{name}": value for name, value in chosen.items()}), facts


def products_of(config: Config) -> Products:
    """Return how 1-bit linears multiply in training; in floats where nothing is settled, and nothing trains."""
    products = config.trainer.products
    return "float" if products == AUTO else products


def _products(config: Config, kept: MachineFacts | None, precision: str) -> ProductChoice:
    trainer = config.trainer
    if trainer.compile:
        return ProductChoice("float", {})
    if trainer.products == AUTO and kept is not None and kept.products is not None:
        return kept.products
    tokens, scheme = trainer.micro_rows * config.data.context_tokens, config.weight.scheme
    return choose_products(trainer.products, precision, trainer.accelerator, scheme, config.activation, tokens)


def _kept(config: Config, directory: RunDirectory | None) -> MachineFacts | None:
    if directory is None or config.trainer.resume == "never":
        return None
    return directory.kept(MachineFacts)
