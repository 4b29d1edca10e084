"""The keys of ``data.*``: each set has those that it uses, bounded and explained."""

import dataclasses
import inspect
import re
from typing import get_type_hints

import pytest

from tests.utils.data.helpers import refused_set
from utils.data.datasets import DATASETS
from utils.data.domains import DOMAINS
from utils.data.fitting import FittedImages
from utils.data.image_files import OwnImages
from utils.data.sections import data_section
from utils.errors import UserError

SECTIONS = {
    **{name: data_section(name, DATASETS) for name in DATASETS},
    **{f"{name}-pair": data_section(name, DOMAINS) for name in DOMAINS},
}
IMAGES = ["name", "resolution", "mirror", "fit"]
TORCHVISION = [*IMAGES, "root", "download"]
FILES = [*IMAGES, "root", "background", "workers", "resident_gib"]
KEYS = {
    "digits": IMAGES,
    "mnist_5k": IMAGES,
    "ring": ["name"],
    "grid": ["name"],
    **dict.fromkeys(("mnist", "fashion_mnist", "cifar10", "cifar100", "usps", "svhn", "stacked_mnist"), TORCHVISION),
    "mnist_m": [*TORCHVISION, "photos"],
    "folder": [*FILES, "validation"],
    "zip": [*FILES, "validation"],
    "moons-pair": ["name"],
    "digit_patches-pair": ["name", "resolution", "mirror"],
    "digit_cameras-pair": ["name", "resolution", "mirror", "validation"],
    "images-pair": [*TORCHVISION, "photos", "source", "target"],
    "domain_folders-pair": [*FILES, "source", "target", "validation"],
    "vectors-pair": ["name", "root", "source", "target", "transform", "validation"],
    "amazon_reviews-pair": ["name", "root", "source", "target", "transform"],
}
DEFAULTS = {
    "root": "data", "source": "", "target": "", "photos": "", "validation": 0.1, "transform": "none",
    "download": False, "resolution": 8, "fit": "exact", "mirror": False, "workers": 2, "resident_gib": 4.0,
    "background": "black",
}  # fmt: skip
BOUNDS = {
    "workers": "Ge(ge=0), Le(le=1024)",
    "resident_gib": "Ge(ge=0)",
    "validation": "Gt(gt=0), Lt(lt=1)",
    "resolution": "a whole number from 1 up or two of them, [height,width]",
    "background": "a colour's name, a gray level from 0 to 255 or three such numbers",
}
# A GAN needs no held-out images, and keeps more to train on.
OF_OWN_IMAGES = {"validation": (0.05, "Ge(ge=0), Lt(lt=1)")}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_set_has_the_keys_that_it_uses(name):
    assert [field.name for field in dataclasses.fields(SECTIONS[name])] == KEYS[name]


def test_every_set_is_in_the_table():
    assert SECTIONS.keys() == KEYS.keys()


@pytest.mark.parametrize("section", dict.fromkeys(SECTIONS.values()), ids=lambda section: section.__name__)
def test_a_key_has_the_same_default_and_bounds_in_every_set(section):
    hints = get_type_hints(section, include_extras=True)
    for key, value in dataclasses.asdict(section()).items():
        bounds = ", ".join(getattr(bound, "words", str(bound)) for bound in getattr(hints[key], "__metadata__", ()))
        expected = DEFAULTS.get(key), BOUNDS.get(key, "")
        if section is OwnImages and key in OF_OWN_IMAGES:
            expected = OF_OWN_IMAGES[key]
        assert key == "name" or (value, bounds) == expected


@pytest.mark.parametrize("section", dict.fromkeys(SECTIONS.values()), ids=lambda section: section.__name__)
def test_every_field_is_explained_by_one_comment_on_its_line(section):
    source = "\n".join(inspect.getsource(base) for base in section.__mro__ if dataclasses.is_dataclass(base))
    for field in dataclasses.fields(section):
        assert re.search(rf"^    {field.name}: .+ = \S+  # \S", source, re.MULTILINE), field.name


def test_the_default_set_is_digits():
    assert data_section(FittedImages().name, DATASETS) is FittedImages


@pytest.mark.parametrize(
    ("name", "registry", "words"),
    [
        ("digit", DATASETS, ["data.name 'digit' is unknown; did you mean 'digits'", *DATASETS]),
        ("moon", DOMAINS, ["data.name 'moon' is unknown; did you mean 'moons'", *DOMAINS]),
        ("ring", DOMAINS, ["data.name 'ring' is unknown", "moons"]),
        ("moons", DATASETS, ["data.name 'moons' is unknown", "digits"]),
        ("usps", DOMAINS, ["data.name 'usps' is unknown"]),
    ],
)
def test_unknown_names_get_a_hint(name, registry, words):
    with pytest.raises(UserError) as caught:
        data_section(name, registry)
    assert [word for word in words if word not in str(caught.value)] == []


def test_unknown_names_and_sizes_are_refused_on_loading():
    assert "did you mean 'digits'" in refused_set(FittedImages("digit"))
    message = refused_set(FittedImages(fit="padd"))
    assert "data.fit" in message
    assert "'pad'" in message
    assert "data.resolution=0" in refused_set(FittedImages(resolution=0))
