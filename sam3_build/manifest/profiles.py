"""A manifest's shape profiles, checked against its targets and the family's dimensions; only reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sam3_build import registry
from sam3_build.manifest.problems import Report
from sam3_build.manifest.rules import check_name, is_known, is_of_another_layout
from sam3_build.manifest.shape import ManifestFile
from sam3_build.manifest.yaml_tree import Keys
from sam3_build.spec import ModelFamily

# target -> its profiles
Taken = Mapping[str, tuple[str, ...]]


def check_profiles(file: ManifestFile, family: ModelFamily | None, report: Report) -> None:
    """Report all that is wrong with `shape_profiles`, and with what targets take of them."""
    for name, dims in file.shape_profiles.items():
        check_name(("shape_profiles", name), "profile", name, report)
        if family:
            for dim in dims:
                keys: Keys = ("shape_profiles", name, dim)
                if not is_of_another_layout(keys, "dynamic dimension", family, lambda x: x.dynamic_dims, report):
                    is_known(keys, "dynamic dimension", dim, family.dynamic_dims, report)
    taken = dict(_taken(file))
    _different(file, taken, report)
    if family:
        _ranges(file, family, taken, report)


def _taken(file: ManifestFile) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each target whose backend uses profiles, with those of its engines."""
    for name, target in file.targets.items():
        if target.backend in registry.names("backends") and registry.backend(target.backend).uses_profiles:
            yield name, file.profiles_of(target)


def _different(file: ManifestFile, taken: Taken, report: Report) -> None:
    """Report profiles of one target with the same ranges: an engine would hold the same thing twice."""
    sound = [p for p in file.shape_profiles if not report.is_broken(("shape_profiles", p))]
    for i, later in enumerate(sound):
        for earlier in sound[:i]:
            targets = [name for name, profiles in taken.items() if earlier in profiles and later in profiles]
            if targets and file.shape_profiles[earlier] == file.shape_profiles[later]:
                both = f"has the same ranges as {earlier!r}, and target {', '.join(targets)} takes both"
                report.add_key(("shape_profiles", later), f"{both}; change one, or leave it out")
                break


def _ranges(file: ManifestFile, family: ModelFamily, taken: Taken, report: Report) -> None:
    """Report the dynamic dimensions that a target's engines have and one of its profiles does not give a range for."""
    users: dict[str, list[str]] = {}
    for component in family.components:
        dims = {d for t in component.inputs for d in t.dims if component.name in file.components}
        for dim in family.dynamic_dims:
            if dim in dims:
                users.setdefault(dim, []).append(component.name)
    missing: dict[Keys, list[str]] = {}
    for name, picked in taken.items():
        if not picked and users and not report.is_broken(("shape_profiles",)):
            backend = file.targets[name].backend
            report.add(("targets", name), f"backend {backend!r} needs a shape profile with {', '.join(users)}")
        for profile in picked:
            for dim in users:
                if dim not in file.shape_profiles.get(profile, {dim: ()}):
                    missing.setdefault(("shape_profiles", profile, dim), []).append(name)
    for keys, targets in missing.items():
        dim = str(keys[-1])
        where = f"{', '.join(users[dim])} for target {', '.join(targets)}"
        report.add(keys, f"dynamic dimension {dim!r} of {where} has no range; write [min, opt, max], or one number")
