"""Upload an exported folder to the Hugging Face hub, when the user asks for it by name and only then."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi

from bitnet_train.errors import ConfigError, FormatError


def check_hub_name(repository: str) -> None:
    """Raise ConfigError unless `repository` is OWNER/NAME; nothing is sent."""
    owner, slash, name = repository.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise ConfigError(f"`export.push_to_hub={repository}` is no repository. Give OWNER/NAME.")


def push_folder(folder: Path, repository: str, *, private: bool = True) -> str:
    """Create the model repository if it is new, upload every file of `folder` in one commit, and return its address.

    Raises FormatError when the hub cannot be reached or refuses; the folder stays where it is.
    """
    check_hub_name(repository)
    try:
        api = HfApi()
        api.create_repo(repository, repo_type="model", private=private, exist_ok=True)
        return str(api.upload_folder(folder_path=folder, repo_id=repository, repo_type="model"))
    except Exception as error:  # the http library behind huggingface_hub, and its errors, differ between versions
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise FormatError(
            f"{folder} was written, but not uploaded to {repository}: {reason}. Log in with `hf auth login` (or set "
            "HF_TOKEN), and export again with `export.force=true`."
        ) from error
