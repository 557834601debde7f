"""A role in its own process for the tests: says its URL, says when it handles, sleeps on ``sleep``, echoes the rest."""

from __future__ import annotations

import time

from airtune.transport import Idempotent, Message, serve


class Sleeper:
    def handle(self, message: Message) -> Message:
        print("handling", message.id, flush=True)
        if message.kind == "sleep":
            time.sleep(600)
        return message.reply("done", message.header, message.body)


if __name__ == "__main__":
    serve(Idempotent(Sleeper()), on_ready=lambda url: print(url, flush=True))
    print("stopped", flush=True)
