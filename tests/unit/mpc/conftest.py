"""All protocols run on all devices."""

import pytest

from tests import parties
from tests.devices import DEVICES


@pytest.fixture(autouse=True, scope="module", params=DEVICES)
def device(request):
    parties.DEVICE = request.param
    yield request.param
    parties.DEVICE = "cpu"
