"""What a run was when it first reached its server, kept in its folder so that asking or resuming needs no data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from airtune.errors import RunError
from airtune.methods.pae_mobillm.identity import Identity
from airtune.records import RunFolder, write_text
from airtune.records.plain import json_text

STARTED: Final = "sent.json"


@dataclass(frozen=True, slots=True)
class Started:
    """What a run was when it first reached its server.

    Args:
        identity: What its samples are sent under.
        labels: How many classes the task tells apart; 0 for running text.
        requests: Requests to forget that the server had had.
    """

    identity: Identity
    labels: int
    requests: int

    def write(self, folder: RunFolder) -> None:
        """Record it."""
        entry = {"identity": self.identity.as_header(), "labels": self.labels, "requests": self.requests}
        write_text(folder.path / STARTED, json_text(entry, indent=2) + "\n")

    @classmethod
    def read(cls, folder: RunFolder) -> Started | None:
        """What was recorded; None where the run has not reached its server. Raises `RunError` for a damaged file."""
        path = folder.path / STARTED
        if not path.is_file():
            return None
        try:
            entry: Mapping[str, Any] = json.loads(path.read_bytes())
            labels, requests = entry["labels"], entry["requests"]
            if not all(type(one) is int and one >= 0 for one in (labels, requests)):
                raise ValueError(f"labels {labels!r:.20}, requests {requests!r:.20}")
            return cls(Identity.of_header(entry["identity"]), labels, requests)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{path} is not what a run writes ({error}); repeat the run") from None
