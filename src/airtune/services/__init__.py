"""Roles behind sockets: a run with its other role in another process, that role itself, and the table of methods.

Reading map: `catalog` lists the methods -> `peer` serves one's other role, or starts it as a process -> `running` runs
a method against it -> `studies` runs a method's studies.
"""

from airtune.services.catalog import METHODS, MethodEntry, method_entry
from airtune.services.peer import PeerProcess, serve_peer
from airtune.services.running import forget_samples, resume_method, run_method
from airtune.services.studies import run_method_study

__all__ = [
    "METHODS",
    "MethodEntry",
    "PeerProcess",
    "forget_samples",
    "method_entry",
    "resume_method",
    "run_method",
    "run_method_study",
    "serve_peer",
]
