"""A release: packages alike, sums that can be checked, a changelog from git, no licence that is not permissive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import features

from docker.release.archive import write_zip
from docker.release.byte_code import compile_all, interpreter
from docker.release.changelog import changelog
from docker.release.checkout import Checkout, check_version, read_checkout
from docker.release.checksums import write_checksums
from docker.release.contents import Contents
from docker.release.dist import clear
from docker.release.licences import Licence, allows, check_permissive, read_licences
from docker.release.lock import requirements_for
from docker.release.notes import notes
from docker.release.packages import Installed
from docker.release.parts import Part, read_parts
from docker.release.sbom import sbom
from docker.release.third_party import third_party
from docker.release.variants import builds
from model_server.catalog import SHIPPED
from model_server.failures import Stopped
from shared.manifest import read_bundle
from tests.servers import ROOT

_TIME = 1_700_000_000
_SHA = "0123456789abcdef0123456789abcdef01234567"
_WHEEL = "a" * 64


# The zip file


def _files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_the_same_files_make_the_same_package_whenever_and_however_they_were_laid(tmp_path: Path) -> None:
    first = _files(tmp_path / "a", "host.json", "shared/x.py", ".python_packages/y.so")
    second = _files(tmp_path / "b", ".python_packages/y.so", "shared/x.py", "host.json")
    (second / "host.json").chmod(0o600)
    os.utime(second / "shared" / "x.py", (1, 1))
    for folder in (first, second):
        write_zip(folder, tmp_path / f"{folder.name}.zip", _TIME)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_the_files_lie_in_the_root_of_the_package_in_order(tmp_path: Path) -> None:
    write_zip(_files(tmp_path / "a", "shared/x.py", "host.json"), tmp_path / "a.zip", _TIME)
    with ZipFile(tmp_path / "a.zip") as package:
        assert package.namelist() == ["host.json", "shared/x.py"]
        assert {(entry.date_time, entry.external_attr >> 16) for entry in package.infolist()} == {
            ((2023, 11, 14, 22, 13, 20), 0o100644)
        }


def test_a_time_before_all_zip_files_is_their_first(tmp_path: Path) -> None:
    write_zip(_files(tmp_path / "a", "x"), tmp_path / "a.zip", 0)
    assert ZipFile(tmp_path / "a.zip").getinfo("x").date_time == (1980, 1, 1, 0, 0, 0)


# The folder and its sums


def test_the_sums_are_what_sha256sum_checks(tmp_path: Path) -> None:
    write_checksums(_files(tmp_path, "b.zip", "a.json"))
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "a.json: OK\nb.zip: OK\n")


def test_an_empty_folder_has_no_sums(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="nothing to sum up"):
        write_checksums(tmp_path)


def test_what_an_earlier_run_has_made_goes(tmp_path: Path) -> None:
    clear(_files(tmp_path, "thinlens-0.0.9-azure-onnx-py311.zip", "SHA256SUMS", "RELEASE.md"))
    assert list(tmp_path.iterdir()) == []


def test_what_would_be_published_by_mistake_stops_the_release(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"secret\.txt was not made by this command"):
        clear(_files(tmp_path, "thinlens-0.0.9.zip", "secret.txt"))
    assert (tmp_path / "thinlens-0.0.9.zip").exists()


# The changelog


class Repository:
    """A git repository; each commit a second after the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._time = _TIME
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")

    def git(self, *words: str) -> None:
        who = {f"GIT_{role}_{part}": "x@example.com" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        when = {f"GIT_{role}_DATE": f"{self._time} +0000" for role in ("AUTHOR", "COMMITTER")}
        own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, **who, **when}
        subprocess.run(["git", *words], cwd=self.folder, env=os.environ | own, check=True, capture_output=True)

    def commit(self, subject: str, *files: str) -> None:
        for name in files:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(subject)
        self._time += 1
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)

    @property
    def checkout(self) -> Checkout:
        return read_checkout(self.folder)

    def lines(self, version: str) -> list[str]:
        """The changelog's lines, less the commits' names."""
        text = changelog(self.checkout, version)
        return [line.rpartition(" (")[0] if line.startswith("- ") else line for line in text.splitlines() if line]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_the_first_release_is_all_that_was_done(repository: Repository) -> None:
    repository.commit("One", "shared/a.py")
    repository.commit("Two", "shared/b.py")
    assert repository.lines("0.1.0") == ["## 0.1.0 (2023-11-14)", "The first release.", "- Two", "- One"]


def test_a_later_release_is_what_was_done_since_the_one_before(repository: Repository) -> None:
    repository.commit("One", "shared/a.py")
    repository.git("tag", "v0.1.0")
    repository.commit("Two", "shared/b.py")
    assert repository.lines("0.2.0")[1:] == ["Changes since v0.1.0.", "- Two"]


def test_the_tag_of_the_release_itself_is_not_the_one_before(repository: Repository) -> None:
    repository.commit("One", "shared/a.py")
    repository.git("tag", "v0.1.0")
    repository.commit("Two", "shared/b.py")
    repository.git("tag", "v0.2.0")
    assert "- Two" in repository.lines("0.2.0")


@pytest.mark.parametrize(
    ("version", "since", "changes"),
    [("0.2.0", "v0.1.0", ["- Three", "- Two"]), ("0.2.0-rc2", "v0.2.0-rc1", ["- Three"])],
    ids=["final", "pre-release"],
)
def test_a_final_release_is_what_was_done_since_the_final_one_before(
    version: str, since: str, changes: list[str], repository: Repository
) -> None:
    for subject, tag in (("Zero", "v0.1.0-rc1"), ("One", "v0.1.0"), ("Two", "v0.2.0-rc1")):
        repository.commit(subject, "a")
        repository.git("tag", tag)
    repository.commit("Three", "a")
    assert repository.lines(version)[1:] == [f"Changes since {since}.", *changes]


def test_a_history_that_is_cut_short_is_refused(repository: Repository, tmp_path: Path) -> None:
    repository.commit("One", "a")
    repository.commit("Two", "b")
    repository.git("clone", "--quiet", "--depth", "1", f"file://{repository.folder}", str(tmp_path / "shallow"))
    with pytest.raises(Stopped, match="git fetch --unshallow"):
        changelog(read_checkout(tmp_path / "shallow"), "0.1.0")


def test_a_rehearsal_says_that_the_history_is_cut_short(repository: Repository, tmp_path: Path) -> None:
    repository.commit("One", "a")
    repository.commit("Two", "b")
    repository.git("clone", "--quiet", "--depth", "1", f"file://{repository.folder}", str(tmp_path / "shallow"))
    assert "the history is cut short" in changelog(read_checkout(tmp_path / "shallow"), "0.1.0", dry=True)


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="not a git repository"):
        read_checkout(tmp_path)


def test_a_release_without_a_change_is_refused(repository: Repository) -> None:
    repository.commit("One", "a")
    repository.git("tag", "v0.1.0")
    with pytest.raises(Stopped, match=r"nothing was committed since v0\.1\.0"):
        changelog(repository.checkout, "0.2.0")


# The version


def _checkout(*tags: str, clean: bool = True) -> Checkout:
    return Checkout(ROOT, _SHA, _TIME, tags, clean)


@pytest.mark.parametrize("given", ["0.1.0", "v0.1.0", None])
def test_a_commit_with_the_versions_tag_may_be_released(given: str | None) -> None:
    check_version(_checkout("v0.1.0"), "0.1.0", given, dry=False)


@pytest.mark.parametrize(
    ("checkout", "given", "said"),
    [
        (_checkout("v0.1.0"), "0.2.0", "expected 0.1.0"),
        (_checkout(), None, "expected the tag v0.1.0"),
        (_checkout("v0.1.0", clean=False), None, "not as committed"),
    ],
    ids=["another version", "no tag", "changed sources"],
)
def test_what_is_not_one_version_is_not_released(checkout: Checkout, given: str | None, said: str) -> None:
    with pytest.raises(Stopped, match=said):
        check_version(checkout, "0.1.0", given, dry=False)


def test_a_dry_run_needs_neither_a_tag_nor_a_commit() -> None:
    check_version(_checkout(clean=False), "0.1.0", None, dry=True)


def test_a_dry_run_of_another_version_is_refused() -> None:
    with pytest.raises(Stopped, match=r"shared/__init__\.py"):
        check_version(_checkout(), "0.1.0", "v0.2.0", dry=True)


# The lock


def _lock(folder: Path, text: str) -> Path:
    path = folder / "lock.txt"
    path.write_text(text)
    return path


def test_a_lock_gives_the_packages_of_the_python_that_is_meant(tmp_path: Path) -> None:
    text = (
        "# Made\nx==1 ; python_full_version < '3.13' \\\n    --hash=sha256:1\n"
        "x==2 ; python_full_version >= '3.13' \\\n    --hash=sha256:2 \\\n    --hash=sha256:3\n"
    )
    lock = _lock(tmp_path, text)
    assert requirements_for(lock, "3.12") == "x==1 --hash=sha256:1\n"
    assert requirements_for(lock, "3.13") == "x==2 --hash=sha256:2 --hash=sha256:3\n"


def test_a_package_for_windows_is_not_among_them(tmp_path: Path) -> None:
    assert requirements_for(_lock(tmp_path, "x==1 ; sys_platform == 'win32' --hash=sha256:1\n"), "3.11") == ""


@pytest.mark.parametrize("line", ["x==1", "x>=1 --hash=sha256:1", "x --hash=sha256:1", "-r other.txt"])
def test_a_line_that_pins_nothing_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(Stopped, match=r"lock\.txt"):
        requirements_for(_lock(tmp_path, f"{line}\n"), "3.11")


# The licences


def _installed(site: Path, metadata: str, **files: str) -> Path:
    info = site / "x-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{metadata}")
    for name, text in files.items():
        (info / name).write_text(text)
    (info / "RECORD").write_text("".join(f"x-1.dist-info/{name},,\n" for name in files))
    return site


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT AND Zlib", "MIT AND Zlib"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("License: 3-Clause BSD License", "BSD-3-Clause"),
        ("License: see LICENSE\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        ("Classifier: License :: OSI Approved :: BSD License", "LicenseRef-BSD"),
    ],
)
def test_a_licence_is_read_from_the_metadata_of_any_age(tmp_path: Path, metadata: str, licence: str) -> None:
    assert [each.licence for each in read_licences(_installed(tmp_path, metadata))] == [licence]


def test_metadata_that_names_no_licence_stops_the_release(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="x 1: its metadata does not tell its licence"):
        read_licences(_installed(tmp_path, "License: my own words"))


@pytest.mark.parametrize(
    ("expression", "may"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("Apache-2.0 OR GPL-2.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-or-later", False),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", True),
        ("AGPL-3.0-only", False),
        ("LicenseRef-Proprietary", False),
        ("ask me", False),
    ],
)
def test_only_permissive_licences_are_shipped(expression: str, may: bool) -> None:
    assert allows(expression) is may


def test_the_gate_names_every_package_that_may_not_be_shipped() -> None:
    licences = [
        Licence(name, "1", licence, (), ())
        for name, licence in (("a", "GPL-3.0-only"), ("b", "MIT"), ("c", "AGPL-3.0-only"))
    ]
    with pytest.raises(Stopped, match=r"a 1 is under GPL-3\.0-only; c 1 is under AGPL-3\.0-only"):
        check_permissive(licences)


_BUNDLED = "Name: libz\nFiles: x.libs/libz*.so\nDescription: a part\nAvailability: there\nLicense: GPL-3.0-only\n"


def test_a_library_beside_a_packages_own_is_judged_too(tmp_path: Path) -> None:
    site = _files(_installed(tmp_path, "License-Expression: MIT\n", **{"LICENSE.txt": _BUNDLED}), "x.libs/libz-1.so.5")
    with pytest.raises(Stopped, match=r"libz, in x 1, is under GPL-3\.0-only"):
        check_permissive(read_licences(site))


def test_a_library_that_is_named_and_not_there_is_nobodys_concern(tmp_path: Path) -> None:
    check_permissive(read_licences(_installed(tmp_path, "License-Expression: MIT\n", **{"LICENSE.txt": _BUNDLED})))


# The libraries that a wheel lists


def _component(name: str, *licences: str, **more: str) -> dict[str, Any]:
    return {"type": "library", "name": name, "licenses": [{"license": {"id": each}} for each in licences], **more}


def _listed(site: Path, *components: dict[str, Any]) -> Path:
    """A package whose list names `components`."""
    info = site / "x-1.dist-info"
    (info / "sboms").mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: x\nVersion: 1\nLicense-Expression: MIT\n")
    (info / "sboms" / "x.cdx.json").write_text(json.dumps({"bomFormat": "CycloneDX", "components": components}))
    (info / "RECORD").write_text("x-1.dist-info/sboms/x.cdx.json,,\n")
    return site


def _with(site: Path, **binaries: bytes) -> Path:
    """Adds binaries to the package: libNAME beside its modules, as auditwheel does, any other as a module."""
    for name, content in binaries.items():
        path = f"x.libs/{name}-0123abcd.so.1.2.3" if name.startswith("lib") else f"x/{name}.cpython-311.so"
        (site / path).parent.mkdir(exist_ok=True)
        (site / path).write_bytes(content)
        with (site / "x-1.dist-info" / "RECORD").open("a") as record:
            record.write(f"{path},,\n")
    return site


def _read(site: Path) -> tuple[Part, ...]:
    (licence,) = read_licences(site)
    return licence.parts


def test_a_library_that_a_wheel_lists_is_a_part_of_it(tmp_path: Path) -> None:
    jpeg = _component("libjpeg / libjpeg-turbo", "IJG", "BSD-3-Clause", version="3.2.0", purl="pkg:generic/jpeg@3.2.0")
    (part,) = _read(_with(_listed(tmp_path, jpeg), libjpeg=b""))
    assert part == Part(
        "libjpeg / libjpeg-turbo",
        "IJG AND BSD-3-Clause",
        "3.2.0",
        "pkg:generic/jpeg@3.2.0",
        ("x.libs/libjpeg-0123abcd.so.1.2.3",),
    )


@pytest.mark.parametrize(
    "component",
    [
        _component("libavif", "BSD-2-Clause"),
        _component("libimagequant", "GPL-3.0-or-later"),
        _component("FriBiDi", "LGPL-2.1-or-later"),
        _component("pybind11", "BSD-3-Clause", scope="excluded"),
        _component("x", "MIT", purl="pkg:pypi/x@1#c-ext/x.y"),
    ],
    ids=lambda component: str(component["name"]),
)
def test_what_is_listed_and_not_there_is_no_part(tmp_path: Path, component: dict[str, Any]) -> None:
    assert _read(_with(_listed(tmp_path, component), y=b"\x7fELF libfribidi.so HAVE_LIBIMAGEQUANT")) == ()


@pytest.mark.parametrize(
    ("name", "licence", "code"),
    [
        ("libimagequant", "GPL-3.0-or-later", b"\0imagequant_version\0"),
        ("FriBiDi", "LGPL-2.1-or-later", b"interface version 4,\nUnicode Character Database version 15.0"),
    ],
)
def test_a_library_that_is_linked_into_a_module_is_judged_too(
    tmp_path: Path, name: str, licence: str, code: bytes
) -> None:
    site = _with(_listed(tmp_path, _component(name, licence)), y=code)
    with pytest.raises(Stopped, match=f"{name}, in x 1, is under {licence}"):
        check_permissive(read_licences(site))


def test_a_listed_library_that_cannot_be_looked_for_counts_as_there(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"libnew, in x 1, is under GPL-3\.0-only"):
        check_permissive(read_licences(_listed(tmp_path, _component("libnew", "GPL-3.0-only", scope="optional"))))


def test_a_library_that_no_list_names_is_recognised(tmp_path: Path) -> None:
    (part,) = _read(_with(_listed(tmp_path), libzstd=b""))
    assert (part.name, part.version, part.licence) == ("zstd", "1.2.3", "BSD-3-Clause OR GPL-2.0-only")


def test_a_library_that_nothing_names_stops_the_release(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match=r"nothing tells what x\.libs/libnew-0123abcd\.so\.1\.2\.3 is"):
        read_licences(_with(_listed(tmp_path), libnew=b""))


def test_a_listed_library_without_a_licence_stops_the_release(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="its list tells no licence of libtiff"):
        read_licences(_with(_listed(tmp_path, _component("libtiff")), libtiff=b""))


def test_a_list_of_another_kind_stops_the_release(tmp_path: Path) -> None:
    (_listed(tmp_path) / "x-1.dist-info" / "sboms" / "x.cdx.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    with pytest.raises(Stopped, match=r"x 1: x\.cdx\.json is not CycloneDX"):
        read_licences(tmp_path)


@pytest.fixture(scope="module")
def in_pillow() -> dict[str, Part]:
    """The parts of the Pillow that is installed here, by name."""
    package = distribution("pillow")
    return {part.name: part for part in read_parts(package, Path(str(package.locate_file(""))), ())}


def test_pillows_decoders_are_parts_with_version_and_licence(in_pillow: dict[str, Part]) -> None:
    decoders = ["libjpeg / libjpeg-turbo", "libtiff", "libwebp", "OpenJPEG", "libpng", "liblzma", "zstd", "FreeType"]
    assert [name for name in decoders if name not in in_pillow or not in_pillow[name].version] == []


def test_what_lies_in_pillow_may_be_shipped(in_pillow: dict[str, Part]) -> None:
    check_permissive([Licence("pillow", "1", "MIT-CMU", tuple(in_pillow.values()), ())])


def test_pillow_itself_says_that_the_gpl_part_is_not_there(in_pillow: dict[str, Part]) -> None:
    assert ("libimagequant" in in_pillow) is features.check("libimagequant") is False


# The list beside a package


def test_the_list_says_what_freetype_and_the_jpeg_group_want_said() -> None:
    parts = (Part("FreeType", "FTL", "2.14.3"), Part("libjpeg", "IJG AND BSD-3-Clause"))
    text = third_party([Licence("pillow", "13", "MIT-CMU", parts, ())], [])
    assert "| FreeType, in pillow | 2.14.3 | FTL | |\n" in text
    wanted = ("The FreeType Project", "the Independent JPEG Group")
    assert [name for name in wanted if name not in text] == []


def test_the_list_names_packages_their_parts_and_their_texts() -> None:
    numpy = Licence("numpy", "2", "BSD-3-Clause", (Part("libquadmath", "LGPL-2.1-or-later"),), ("numpy/LICENSE",))
    text = third_party([numpy], [read_bundle(SHIPPED / "coco-ssd-mobilenet-v2")])
    assert (
        "| numpy | 2 | BSD-3-Clause | `numpy/LICENSE` |\n| libquadmath, in numpy | | LGPL-2.1-or-later \\* | |" in text
    )
    assert "| coco-ssd-mobilenet-v2 | 1 | Apache-2.0 |" in text


# The list of parts


@pytest.fixture
def contents() -> Contents:
    packages = (Installed("numpy", "2", _WHEEL), Installed("prometheus-client", "1", _WHEEL))
    licences = (
        Licence("numpy", "2", "BSD-3-Clause", (Part("libquadmath", "LGPL-2.1-or-later"),), ()),
        Licence("prometheus_client", "1", "Apache-2.0 AND BSD-2-Clause", (), ()),
    )
    return Contents(packages, licences, (read_bundle(SHIPPED / "coco-ssd-mobilenet-v2"),))


def test_the_sbom_names_packages_with_version_wheel_and_licence(contents: Contents) -> None:
    read = json.loads(sbom("thinlens-0.1.0-azure-onnx-py311", "0.1.0", _checkout(), contents))
    (found,) = (each for each in read["components"] if each["name"] == "numpy")
    assert (found["purl"], found["version"]) == ("pkg:pypi/numpy@2", "2")
    assert found["hashes"] == [{"alg": "SHA-256", "content": _WHEEL}]
    assert [each["license"]["id"] for each in found["licenses"]] == ["BSD-3-Clause"]


def test_the_sbom_names_what_lies_in_a_wheel_under_a_licence_of_its_own(contents: Contents) -> None:
    read = json.loads(sbom("thinlens-0.1.0-azure-onnx-py311", "0.1.0", _checkout(), contents))
    (found,) = (each for each in read["components"] if each["name"] == "numpy")
    assert [(each["name"], each["licenses"][0]["license"]["id"]) for each in found["components"]] == [
        ("libquadmath", "LGPL-2.1-or-later")
    ]


def test_the_sbom_names_a_part_with_version_and_where_it_is_from(contents: Contents) -> None:
    part = Part("libXau", "MIT-open-group", "1.0.9-3.el8", "pkg:rpm/almalinux/libXau@1.0.9-3.el8")
    pillow = Licence("pillow", "13", "MIT-CMU", (part,), ())
    whole = contents._replace(packages=(Installed("pillow", "13", _WHEEL),), licences=(pillow,))
    read = json.loads(sbom("thinlens-0.1.0-azure-onnx-py311", "0.1.0", _checkout(), whole))
    (found,) = next(each["components"] for each in read["components"] if each["name"] == "pillow")
    assert (found["name"], found["version"], found["purl"]) == (part.name, part.version, part.purl)


def test_the_sbom_names_the_model_with_its_weights(contents: Contents) -> None:
    read = json.loads(sbom("thinlens-0.1.0-azure-onnx-py311", "0.1.0", _checkout(), contents))
    (model,) = (each for each in read["components"] if each["type"] == "machine-learning-model")
    declared = json.loads((SHIPPED / "coco-ssd-mobilenet-v2" / "model.json").read_text())
    artifacts = declared["networks"]["detector"]["artifacts"].values()
    assert {each["hashes"][0]["content"] for each in model["components"]} == {each["sha256"] for each in artifacts}


def test_the_same_parts_make_the_same_sbom(contents: Contents) -> None:
    first, second = (sbom("thinlens-0.1.0-azure-onnx-py311", "0.1.0", _checkout(), contents) for _ in range(2))
    assert first == second


# The byte code


def test_this_python_compiles_for_its_own_version() -> None:
    assert interpreter(f"{sys.version_info.major}.{sys.version_info.minor}", []) == sys.executable


def test_there_is_no_compiler_for_a_python_that_is_not_here() -> None:
    assert interpreter("3.4", []) is None


def test_what_is_no_python_is_refused_as_a_compiler(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="expected a Python"):
        interpreter("3.4", [tmp_path / "none"])


def test_byte_code_names_the_place_where_azure_mounts_the_app(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("print(__file__)")
    compile_all(tmp_path, sys.executable)
    assert b"/home/site/wwwroot/x.py" in next(tmp_path.rglob("*.pyc")).read_bytes()


# What there is


def test_a_package_is_named_by_version_variant_and_python() -> None:
    (build,) = builds(["azure-external"], ["3.12"])
    assert build.stem("0.1.0") == "thinlens-0.1.0-azure-external-py312"


def test_a_package_that_the_cloud_fills_is_for_every_python() -> None:
    assert [build.stem("0.1.0") for build in builds(["google-onnx"], ["3.11", "3.12"])] == [
        "thinlens-0.1.0-google-onnx"
    ]


def test_an_unknown_variant_is_told_with_those_that_there_are() -> None:
    with pytest.raises(Stopped, match="'azure' is no variant; expected some of azure-onnx, "):
        builds(["azure"], ["3.11"])


def test_every_lock_of_a_package_is_there() -> None:
    locks = {build.variant.lock for build in builds([], ["3.11"]) if build.variant.lock}
    assert [name for name in locks if not (ROOT / "docker" / "locks" / name).is_file()] == []


def test_the_releases_text_says_what_each_file_is_for() -> None:
    text = notes("## 0.1.0\n", builds(["azure-external-encoded"], ["3.11"]), "0.1.0")
    assert (
        "| `thinlens-0.1.0-azure-external-encoded-py311.zip` | Azure Functions, Python 3.11, packages inside | " in text
    )
