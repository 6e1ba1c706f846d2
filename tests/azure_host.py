"""A small Azure Functions host: Microsoft's own Python worker library behind HTTP.

It stands in for `func start`, and for the host in Azure's image (docker/azure-stand-in.Dockerfile), where those cannot
be had. The worker (azure-functions-runtime, meant for Python 3.13 and later) is the real one: it finds the function
app, indexes it, turns requests into `HttpRequest` and `HttpResponse` into replies, and runs functions in its thread
pool. What the host does around it follows the real host's ways: it reads the whole body first, joins repeated headers
with a comma, and gives the function no body that came without a Content-Length, unless `--gather-chunks` puts a front
end before it that sends the length. Keys are not checked.

    .venv-azure/bin/python -P tests/azure_host.py FOLDER --port 7071

It imports nothing of the project but through FOLDER, so that a staged folder has to stand on its own.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import azure_functions_runtime as worker
from aiohttp import web

_LOOPBACK = "127.0.0.1"
_DRAIN_S = 30
_CLOSE_S = 1
_LARGEST_BODY = 210_000_000
_PARAMETER = re.compile(r"\{(?P<all>\*)?(?P<name>\w+)\}")


def _messages() -> Any:
    """The messages beside this file, which is run by its path with nothing of ours on sys.path."""
    spec = importlib.util.spec_from_file_location(
        "azure_worker_messages", Path(__file__).with_name("azure_worker_messages.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


messages = _messages()


class Function(NamedTuple):
    """An HTTP function as the worker has indexed it."""

    id: str
    name: str
    parameter: str
    route: str
    methods: tuple[str, ...]
    auth_level: str
    path: re.Pattern[str]


class Host:
    """The functions of one folder, loaded by the worker of this process."""

    def __init__(self, functions: list[Function], *, gather_chunks: bool) -> None:
        self.functions = functions
        self._gather_chunks = gather_chunks
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    async def start(cls, folder: Path, *, gather_chunks: bool) -> Host:
        """Indexes and loads the folder's functions. Raises RuntimeError with the worker's own words."""
        worker.start_threadpool_executor()
        started = await worker.worker_init_request(
            messages.envelope(_LOOPBACK, messages, worker_init_request=messages.init_request(str(folder)))
        )
        _check(started.result)
        prefix = _route_prefix(folder)
        indexed = await worker.functions_metadata_request(messages.envelope(_LOOPBACK, messages))
        functions = []
        for metadata in indexed.function_metadata_results or []:
            load = messages.load_request(metadata.function_id)
            loaded = await worker.function_load_request(
                messages.envelope(_LOOPBACK, messages, function_load_request=load)
            )
            _check(loaded.result)
            functions += _http_functions(metadata, prefix)
        return cls(functions, gather_chunks=gather_chunks)

    async def answer(self, request: web.Request) -> web.Response:
        """One request, its body still on the way."""
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._route(request)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def drain(self) -> None:
        """Returns once no request is under way, or when waiting for them has taken too long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _DRAIN_S)

    async def _route(self, request: web.Request) -> web.Response:
        """Through the first function whose route and methods fit."""
        fitting = [(function, function.path.fullmatch(request.path)) for function in self.functions]
        routed = [(function, match) for function, match in fitting if match]
        for function, match in routed:
            if request.method in function.methods:
                return await self._invoke(function, request, match.groupdict())
        return web.Response(status=405 if routed else 404)

    async def _invoke(self, function: Function, request: web.Request, parameters: dict[str, str]) -> web.Response:
        body = await request.read()
        if request.content_length is None and not self._gather_chunks:
            body = b""
        data = messages.TypedData(http=_http_request(request, parameters, body))
        invocation = messages.invocation_request(str(uuid4()), function.id, {function.parameter: data})
        done = await worker.invocation_request(messages.envelope(_LOOPBACK, messages, invocation_request=invocation))
        if done.result.status != messages.StatusResult.Success:
            logging.getLogger("host").error("invocation failed: %s", done.result.exception.message)
            return web.Response(status=500)
        return _http_response(request, done.return_value)


def _http_functions(metadata: Any, prefix: str) -> list[Function]:
    triggers = [binding for text in metadata.raw_bindings if (binding := json.loads(text))["type"] == "httpTrigger"]
    return [
        Function(
            id=metadata.function_id,
            name=metadata.name,
            parameter=trigger["name"],
            route=trigger["route"],
            methods=tuple(method.upper() for method in trigger["methods"]),
            auth_level=trigger["authLevel"].lower(),
            path=_path(f"{prefix}/{trigger['route']}".strip("/")),
        )
        for trigger in triggers
    ]


def _path(route: str) -> re.Pattern[str]:
    """The paths of a route: `{name}` is one segment, `{*name}` all the rest, nothing included."""
    pattern, at = "/", 0
    for parameter in _PARAMETER.finditer(route):
        pattern += re.escape(route[at : parameter.start()])
        pattern += f"(?P<{parameter['name']}>{'.*' if parameter['all'] else '[^/]+'})"
        at = parameter.end()
    return re.compile(pattern + re.escape(route[at:]), re.DOTALL)


def _route_prefix(folder: Path) -> str:
    settings = json.loads((folder / "host.json").read_text(encoding="utf-8"))
    prefix: str = settings.get("extensions", {}).get("http", {}).get("routePrefix", "api")
    return prefix


def _http_request(request: web.Request, parameters: dict[str, str], body: bytes) -> Any:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name.lower()] = f"{headers[name.lower()]},{value}" if name.lower() in headers else value
    query: dict[str, str] = {}
    for name, value in request.query.items():
        query[name] = f"{query[name]},{value}" if name in query else value
    path, _, query_text = request.raw_path.partition("?")
    url = f"http://{request.host}{quote(path, safe='/%:@!$&()*+,;=~')}"
    return messages.RpcHttp(
        method=request.method,
        url=f"{url}?{query_text}" if query_text else url,
        headers=headers,
        params={name: value for name, value in parameters.items() if value},
        query={name: value for name, value in query.items() if value},
        body=messages.TypedData(bytes=body) if body else messages.TypedData(),
    )


def _http_response(request: web.Request, returned: Any) -> web.Response:
    http = returned.http
    headers = {name: value for name, value in http.headers.items() if name.lower() != "content-length"}
    response = web.Response(status=int(http.status_code), headers=headers, body=http.body.bytes)
    if request.method == "HEAD" and "Content-Length" in http.headers:
        response.headers["Content-Length"] = http.headers["Content-Length"]
    return response


def _check(result: Any) -> None:
    if result.status != messages.StatusResult.Success:
        raise RuntimeError(f"{result.exception.message}\n{result.exception.stack_trace}")


async def serve(folder: Path, address: str, port: int, *, gather_chunks: bool) -> None:
    """Answers until SIGTERM or SIGINT, then takes no more and ends what it has begun."""
    host = await Host.start(folder, gather_chunks=gather_chunks)
    logging.getLogger("host").info(
        "%s", json.dumps({"functions": [[f.name, f.route, f.methods, f.auth_level] for f in host.functions]})
    )
    application = web.Application(client_max_size=_LARGEST_BODY)
    application.router.add_route("*", "/{path:.*}", host.answer)
    runner = web.AppRunner(application, shutdown_timeout=_CLOSE_S, access_log=None)
    await runner.setup()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    site = web.TCPSite(runner, address, port)
    await site.start()
    await stopping.wait()
    await site.stop()
    await host.drain()  # before the clean-up, after which aiohttp reads no more of a body
    await runner.cleanup()
    worker.stop_threadpool_executor()


def main() -> None:
    parser = argparse.ArgumentParser(description="serve a folder of Azure Functions")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default=_LOOPBACK, help="the address to listen on (loopback)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--gather-chunks", action="store_true", help="pass on bodies that came in chunks")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    folder = given.folder.resolve()
    sys.path.insert(0, str(folder))  # the real host starts its worker with the app's folder there
    asyncio.run(serve(folder, given.host, given.port, gather_chunks=given.gather_chunks))


if __name__ == "__main__":
    main()
