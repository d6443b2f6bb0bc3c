from __future__ import annotations

import pytest

from highmem.errors import UsageError
from highmem.kernel.profile import Profile, make_profile
from highmem.replay import replay
from support.recordings import Recorder
from support.trace_reading import read_bytes

MIB = 1 << 20
PAGES = 12


def recording(profile: Profile) -> bytes:
    rec = Recorder(profile, cpus=3)
    rec.warm_up((0, 1, 2))
    rec.run(0, "task")
    pages = [rec.page() for _ in range(PAGES)]
    for page in pages:
        rec.kmap(page)
    for page in pages:
        rec.kunmap(page)
    rec.exit()
    rec.go_on()
    return rec.text()


@pytest.mark.parametrize("family", ["T0", "T10", "S1", "S4", "L0", "L1"])
def test_less_ram_than_the_recording_shows_is_one_line_and_enough_is_enough(family: str) -> None:
    profile = make_profile(family, nr_cpus=4, nx=False)
    data = recording(profile)
    whole = replay(read_bytes(data), profile)
    first = profile.layout(2048 * MIB).highstart_pfn << 12
    for ram in (16 * MIB, 256 * MIB, first, first + 4096, first + (PAGES - 1) * 4096):
        with pytest.raises(UsageError, match="frames of high memory, but the recording") as caught:
            replay(read_bytes(data), profile, ram)
        assert "\n" not in str(caught.value)
    enough = replay(read_bytes(data), profile, first + MIB)
    assert (enough.right, enough.wrong) == (whole.right, 0)
    assert whole.right > PAGES
