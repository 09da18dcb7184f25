"""A stand-in for the member process: it reads the configuration and answers the control socket, nothing else.

Environment of its behaviour, by the parameters in its configuration: `exit_at_start`, `never_ready`.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import yaml


async def serve(configuration: dict[str, object]) -> None:
    done = asyncio.Event()
    parameters = configuration["parameters"]
    assert isinstance(parameters, dict)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            request = json.loads(line)
            reply: dict[str, object] = {"ok": True, "result": None}
            if request["command"] == "status":
                reply["result"] = {"ready": not parameters.get("never_ready"), "state": "Active", "pid": os.getpid(),
                                   "release": configuration["release"], "member": configuration["member"]}
            elif request["command"] == "stop":
                done.set()
            else:
                reply = {"ok": False, "error": f"no command {request['command']}"}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    await asyncio.start_unix_server(answer, path=str(configuration["control"]))
    await done.wait()


if __name__ == "__main__":
    loaded = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    if loaded["parameters"].get("exit_at_start"):
        print("member: fw.yaml: policy: something is wrong with it", file=sys.stderr)
        sys.exit(2)
    asyncio.run(serve(loaded))
