"""Certificates over HTTP: `dualsmooth.Service` behind FastAPI. See README.md here.

uvicorn --app-dir examples/fastapi_service app:app --port 8080
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import prometheus_client
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

import dualsmooth as ds
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE
from dualsmooth.runtime.datasets.single_images import Image, read_picture
from dualsmooth.runtime.serving.protocol import refusal_of
from dualsmooth.runtime.serving.requests import parse_groups

BUNDLE = os.environ.get("DUALSMOOTH_BUNDLE", str(SHIPPED_BUNDLE))
THREADS = int(os.environ.get("DUALSMOOTH_THREADS", "0"))
LIMITS = ds.Limits(max_passes=500_000, max_seconds=60, max_open=16, max_waiting=64)
MAX_BYTES = 8 << 20


class TooLarge(ds.InputError):
    """More bytes than are read of anybody."""


STATUS = {TooLarge: 413, ds.InputError: 400, ds.Refused: 503}
"""Status of each kind of error; 500 for all others. Proxies may repeat what got 503, and must not what got 500: 503 is
said only where nothing was sampled."""


class Asked(BaseModel, extra="forbid"):
    """What a query may say; a name that is not here is refused, not ignored."""

    alpha: float = 0.001
    rule: str = "interval"
    route: str | None = None
    groups: str = "false"
    at_most: int = 1

    def arguments(self) -> dict[str, Any]:
        """Those of the service. Raises `InputError`."""
        return self.model_dump() | {"groups": parse_groups(self.groups)}


class ToCertify(Asked):
    budget: str | None = None
    mode: str | None = None
    r: float | None = None

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | ({} if self.budget is None else {"budget": ds.parse_budget(self.budget)})


class ToPredict(Asked):
    n: int = 1000


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The service lives as long as the process that answers: it is made after any fork, and drained at the end."""
    with ds.load(BUNDLE, threads=THREADS) as smoother:
        service = app.state.service = ds.Service(smoother, LIMITS)
        collector = service.export_metrics()
        yield
        await asyncio.to_thread(service.close)
        prometheus_client.REGISTRY.unregister(collector)


app = FastAPI(title="dualsmooth", lifespan=lifespan)
PICTURE = {
    "requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}


@app.post("/certify", openapi_extra=PICTURE)
async def certify(request: Request, query: Annotated[ToCertify, Query()]) -> Response:
    """The certificate of the picture in the body (PNG, JPEG, …), as `dualsmooth verify` reads it."""
    asked = query.arguments()
    image = await picture(request)
    return as_json(await unless_gone(request, request.app.state.service.certify_async(image, **asked)))


@app.post("/predict", openapi_extra=PICTURE)
async def predict(request: Request, query: Annotated[ToPredict, Query()]) -> Response:
    """A label or an abstention for the picture in the body, without a radius."""
    asked = query.arguments()
    image = await picture(request)
    return as_json(await unless_gone(request, request.app.state.service.predict_async(image, **asked)))


@app.get("/bundle")
async def bundle(request: Request) -> Response:
    """What is served: the names of the classes, which labels count from 0, the noise levels, the input [C,H,W]."""
    served = request.app.state.service.smoother.bundle
    facts = {"classes": served.classes, "sigmas": served.sigmas, "input_shape": served.input_shape}
    return JSONResponse(facts | {"manifest_sha256": served.manifest_sha256})


@app.get("/health")
async def health(request: Request) -> Response:
    """200 while the process works (else it should be started again), with `ready`: whether it takes requests now."""
    service = request.app.state.service
    return JSONResponse({"live": service.live, "ready": service.ready}, 200 if service.live else 503)


@app.get("/metrics")
async def metrics() -> Response:
    """For Prometheus."""
    return Response(prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST)


async def picture(request: Request) -> Image:
    """The picture in the body of a request, uint8 [C,H,W]. Raises `InputError`."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_BYTES:
            raise TooLarge(f"the picture has over {MAX_BYTES} bytes, this server's limit; resize it")
    bundle = request.app.state.service.smoother.bundle
    return read_picture(bytes(data), bundle.input_shape, bundle.preprocessing)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` gives; it is cancelled, and so is its sampling, when the client hangs up."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(hung_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def as_json(answer: ds.Certificate | ds.Prediction) -> Response:
    return Response(answer.to_json(), media_type="application/json")


@app.exception_handler(ds.DualSmoothError)
async def refused(request: Request, error: ds.DualSmoothError) -> Response:
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    headers = {"Retry-After": "1"} if status == 503 else {}
    return JSONResponse({"code": refusal_of(error).code, "error": str(error)}, status, headers)


@app.exception_handler(ClientDisconnect)
async def nobody_there(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)
