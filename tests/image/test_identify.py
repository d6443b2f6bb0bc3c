from __future__ import annotations

import pytest

from highmem.image.find.identify import choose_profile
from highmem.kernel.families import Era
from highmem.kernel.layout_geometry import GEOMETRIES


# Families and eras by release: linux-facts.md, table of profiles.
@pytest.mark.parametrize(
    ("release", "family", "geometry", "era"),
    [
        ("2.6.12", "T0", "2.6.20", Era.TYPED),
        ("2.6.18-6-686", "T0", "2.6.20", Era.TYPED),
        ("2.6.24-1-686", "T4", "2.6.24", Era.TYPED),
        ("2.6.32-5-686-bigmem", "T8", "2.6.32", Era.TYPED),
        ("2.6.36", "T10", "2.6.36", Era.TYPED),
        ("2.6.38-8-generic", "S0", "2.6.36", Era.STACK),
        ("3.2.0-4-686-pae", "S1", "3.2", Era.STACK),
        ("3.16.0-4-586", "S1", "3.16", Era.STACK),
        ("4.4.0-21-generic", "S3", "4.4", Era.STACK),
        ("4.19.0-27-686", "S3", "4.19", Era.STACK),
        ("5.4.0", "S3", "5.4", Era.STACK),
        ("5.8.18", "S4", "5.4", Era.STACK),
        ("5.15.0-1", "L0", "5.10", Era.LOCAL),
        ("6.12.9", "L1", "6.1", Era.LOCAL),
    ],
)
@pytest.mark.parametrize("pae", [False, True])
def test_a_release_without_a_profile_gets_its_familys(
    release: str, family: str, geometry: str, era: Era, pae: bool
) -> None:
    profile, how = choose_profile(release, pae)
    assert (profile.family, profile.era, profile.pae) == (family, era, pae)
    assert profile.geometry == GEOMETRIES[geometry]
    assert family in how and release in how and "defaults" in how


def test_another_build_of_a_known_release_gets_the_nearest_profile() -> None:
    profile, how = choose_profile("6.1.0-9-686", False)
    assert profile.name == "debian-6.1-686"
    assert "nearest" in how and "may differ" in how
    assert choose_profile("5.10.1", True)[0].name == "debian-5.10-686-pae"


def test_the_very_release_is_no_guess_but_no_release_is() -> None:
    profile, how = choose_profile("5.10.0-32-686", False)
    assert profile.name == "debian-5.10-686" and how == "its release is 5.10.0-32-686"
    # The release says 686; the tables are PAE's, so it is another kernel of that series.
    assert choose_profile("5.10.0-32-686", True)[0].name == "debian-5.10-686-pae"
    assert "guess" in choose_profile(None, True)[1]
    assert choose_profile("strange", False)[0].family == "T0"
