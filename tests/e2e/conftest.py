"""The container images and what runs of them, for the tests that are marked `images`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
import requests
from PIL import Image as Pillow

from docker.matrix.variants import VARIANTS, Variant
from tests import containers
from tests.browser import chrome, page_server, shared_chromium, start_chromium  # noqa: F401 - fixtures of the page
from tests.container_images import ASKED, Functions, Images
from tests.containers import Container, Engine, Image

_TIMEOUT_S = 60.0
_BY_NAME = {variant.name: variant for variant in VARIANTS}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with containers.engine() as found:
        yield found


@pytest.fixture(scope="session")
def images(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Images]:
    """The images; how large each is, and on what it was built, is printed whatever pytest captures."""
    found = Images(engine)
    yield found
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(found.table())  # noqa: T201


@pytest.fixture(scope="session")
def functions(engine: Engine, images: Images) -> Iterator[Functions]:
    found = Functions(engine, images)
    yield found
    found.close()


@pytest.fixture(scope="session", params=ASKED, ids=lambda variant: variant.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    """Every variant that is asked for in turn; all tests of one come together."""
    found: Variant = request.param
    return found


@pytest.fixture(scope="session")
def asked() -> Callable[[str], Variant]:
    """The variant of a name; skips the test where only others are asked for."""

    def one(name: str) -> Variant:
        if _BY_NAME[name] not in ASKED:
            pytest.skip(f"NOT RUN: {name} is not among the variants that are asked for")
        return _BY_NAME[name]

    return one


@pytest.fixture(scope="session")
def image(images: Images, variant: Variant) -> Image:
    return images.function(variant)


@pytest.fixture(scope="session")
def function(functions: Functions, variant: Variant) -> Iterator[Container]:
    """A container of the variant that answers, as long as its tests last."""
    with functions.running(variant) as container:
        yield container


@pytest.fixture(scope="session")
def reference(functions: Functions, photo: bytes) -> Any:
    """What the image with the model inside says of the photo."""
    with functions.running(_BY_NAME["google-onnx"]) as container:
        reply = requests.post(f"{container.url}/predict", data=photo, timeout=_TIMEOUT_S)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.fixture(scope="session")
def large_photo() -> bytes:
    """A PNG of 12 megapixels: decoding takes as long as anything does, and cannot be cut short by scaling."""
    ramp = Pillow.linear_gradient("L").resize((4000, 3000))
    picture = Pillow.merge("RGB", (ramp, ramp.transpose(Pillow.Transpose.FLIP_TOP_BOTTOM), ramp))
    file = BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
