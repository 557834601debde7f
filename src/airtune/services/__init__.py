"""Roles behind sockets: a run with its edge in another process, the edge itself, and the table of methods.

Reading map: `catalog` lists the methods -> `edge` serves one's edge, or starts it as a process -> `cloud` runs a method
against it -> `studies` runs a method's studies.
"""

from airtune.services.catalog import METHODS, MethodEntry, method_entry
from airtune.services.cloud import resume_method, run_method
from airtune.services.edge import EdgeProcess, serve_edge
from airtune.services.studies import run_method_study

__all__ = [
    "METHODS",
    "EdgeProcess",
    "MethodEntry",
    "method_entry",
    "resume_method",
    "run_method",
    "run_method_study",
    "serve_edge",
]
