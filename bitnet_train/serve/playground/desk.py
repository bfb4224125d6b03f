"""All that is behind the page, and what each request of it does; `routes` knows the addresses."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bitnet_train import __version__
from bitnet_train.bench.llama_cpp import find_llama_bench
from bitnet_train.disk import check_writable, writing
from bitnet_train.errors import BitnetTrainError
from bitnet_train.importers.found import find_model, require_model
from bitnet_train.importers.load import tiny_folder
from bitnet_train.importers.source import absolute, looks_like_path, public_name
from bitnet_train.kernels.isa import backend
from bitnet_train.serve.playground import requests
from bitnet_train.serve.playground.clean import Names
from bitnet_train.serve.playground.house import House
from bitnet_train.serve.playground.jobs import Job, Jobs
from bitnet_train.serve.playground.models import Bench, Model, Models
from bitnet_train.serve.playground.recipes import Recipes, check_choice
from bitnet_train.serve.playground.refusal import Refused
from bitnet_train.serve.playground.run_jobs import RunJobs
from bitnet_train.serve.playground.runs import Runs
from bitnet_train.serve.playground.schemes import described
from bitnet_train.serve.playground.store import JobStore
from bitnet_train.serve.playground.uploads import Uploads
from bitnet_train.serve.settings import PlaygroundConfig

_LEAST_ADDRESSES, _ADDRESSES_PER_BYTE = 16 << 30, 24


@dataclass
class Desk:
    """See above."""

    settings: PlaygroundConfig
    folder: Path
    names: Names
    jobs: Jobs
    models: Models
    uploads: Uploads
    recipes: Recipes
    runs: Runs
    run_jobs: RunJobs

    @classmethod
    def open(cls, settings: PlaygroundConfig, house: House) -> Desk:
        """Open the playground's folder, and read back what was done in it."""
        folder = Path(settings.dir).absolute()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
        names = Names({str(folder / "runs"): "runs", str(folder): "playground", str(house.run_root.absolute()): "runs"})
        jobs = Jobs(JobStore(folder / "jobs"), settings.most_jobs)
        shutil.rmtree(folder / "scratch", ignore_errors=True)
        bench = Bench(folder, settings.text_tokens, lambda size: most_addresses(settings, size))
        recipes = Recipes(folder / "recipes", house)
        return cls(
            settings,
            folder,
            names,
            jobs,
            Models(bench, names, jobs, settings.most_models),
            Uploads(folder / "uploads", upload_bytes(settings)),
            recipes,
            Runs([folder / "runs", house.run_root.absolute()], house, names),
            RunJobs(folder / "runs", recipes, house, names),
        )

    async def close(self) -> None:
        """End everything that was started, and remove what strangers sent, unless it is to be kept."""
        await self.run_jobs.close()
        await self.models.close()
        if not self.settings.keep_uploads:
            self.uploads.clear()
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)

    def state(self) -> dict[str, Any]:
        """Return all that a page which has just been opened shows; runs apart, which are read from the disk."""
        return {
            "version": __version__,
            "machine": machine(),
            "schemes": described(),
            "models": [model.to_dict() for model in self.models],
            "jobs": [job.to_dict() for job in self.jobs],
            "recipes": self.recipes.listed(),
            "limits": {
                "upload_bytes": upload_bytes(self.settings),
                "text_characters": requests.MOST_TEXT,
                "new_tokens": requests.MOST_NEW_TOKENS,
                "models": self.settings.most_models,
                "jobs": self.settings.most_jobs,
                "text_tokens": self.settings.text_tokens,
            },
            "llama_cpp": has_llama_cpp(),
        }

    async def open_model(self, source: str) -> Model:
        """Begin to load a model by a word, as `model.source` names one. Raises Refused."""
        try:
            found = require_model(source, "source")
        except BitnetTrainError as error:
            raise Refused(400, self.names.clean(str(error)), "source", "no_model") from None
        where = absolute(source) if looks_like_path(source) else source
        name = public_name(where) if found.kind != "run" else "/".join(Path(where).parts[-2:])
        return await self.models.add(where, name, _num_bytes(source))

    async def close_model(self, number: str) -> None:
        """Close a model, and remove it where it was uploaded."""
        model = await self.models.remove(number)
        if model.folder is not None:
            self.uploads.remove(model.folder)

    async def start_job(self, asked: requests.Body) -> Job:
        """Queue a job. Raises Refused."""
        if isinstance(asked, requests.Run):
            return self._start_run(asked)
        values = asked.model_dump()
        model = self.models.get(values["model"])
        model.require_ready()
        if "choice" in values:
            check_choice(model.layers, values["choice"])
        job = self.jobs.add(values["kind"], values, model.id, model.name)
        model.take(job)
        return job

    async def cancel_job(self, number: str) -> Job:
        """Have a job end; one that has ended stays as it is."""
        job = self.jobs.get(number)
        if job.ended.is_set():
            return job
        if job.kind == "run":
            self.run_jobs.cancel(job)
        elif job.model is not None:
            await self.models.get(job.model).cancel(job)
        return job

    def save_recipe(self, asked: requests.NewRecipe) -> Mapping[str, Any]:
        """Keep a choice as a recipe; what is answered has the model's name where the file has its place."""
        model = self.models.get(asked.model)
        model.require_ready()
        text = self.recipes.save(asked.name, model.source, model.name, model.layers, asked.choice, asked.base)
        return {"name": asked.name, "yaml": self.names.clean(text)}

    def _start_run(self, asked: requests.Run) -> Job:
        self.run_jobs.check(asked.recipe, asked.overrides)
        job = self.jobs.add("run", asked.model_dump(), asked.model, asked.recipe)
        self.run_jobs.take(job)
        return job


def upload_bytes(settings: PlaygroundConfig) -> int:
    """The most bytes of an upload."""
    return int(settings.upload_mb * 1e6)


def most_addresses(settings: PlaygroundConfig, num_bytes: int | None) -> int | None:
    """Return what the process of a model of so many bytes may map: torch alone maps gigabytes.

    Of a model that is taken from a hub nothing is known yet, and so it has no limit of its own.
    """
    if settings.worker_mb is not None:
        return int(settings.worker_mb * 1e6)
    return None if num_bytes is None else _LEAST_ADDRESSES + _ADDRESSES_PER_BYTE * num_bytes


@cache
def machine() -> dict[str, Any]:
    """Return what computes here."""
    return {"cpu": _cpu(), "threads": len(os.sched_getaffinity(0)), "isa": backend()}


@cache
def has_llama_cpp() -> bool:
    """Whether llama.cpp's benchmark is found."""
    try:
        return find_llama_bench() is not None
    except BitnetTrainError:
        return False


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


def _num_bytes(source: str) -> int | None:
    """Bytes of the files of a model as it was named; None for a name on a hub."""
    found = find_model(source)
    if found.kind == "hub":
        return None
    path = tiny_folder() if found.kind == "tiny" else found.path
    files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*/*.safetensors")]
    return sum(file.stat().st_size for file in files)
