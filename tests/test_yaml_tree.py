"""YAML itself: what is not valid, not safe or not meant gets one sentence with its line, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam3_build.manifest.yaml_tree import Plain, Problem, Value, read_yaml


def read(file: Path) -> tuple[Value | None, list[Problem]]:
    wrong: list[Problem] = []
    return read_yaml(file, file.read_bytes(), wrong), wrong


def plain(tmp_path: Path, text: str) -> Plain:
    (tmp_path / "f.yaml").write_text(text)
    root, wrong = read(tmp_path / "f.yaml")
    assert wrong == []
    assert root is not None
    return root.plain()


def problems(tmp_path: Path, text: str | bytes) -> list[tuple[int, str]]:
    (tmp_path / "f.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(p.place.line, p.text) for p in read(tmp_path / "f.yaml")[1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("1.5e+2", 150.0),
        ("'1e-3'", "1e-3"),
        ("true", True),
        ("~", None),
        ("2024-01-01", "2024-01-01"),
        ("8.9.1", "8.9.1"),
        ("!!str 20", "20"),
        ("[a, [b]]", ["a", ["b"]]),
    ],
)
def test_scalars_are_what_they_look_like(tmp_path: Path, text: str, expected: Plain) -> None:
    found = plain(tmp_path, f"a: {text}")
    assert found == {"a": expected}
    assert isinstance(found, dict)
    assert type(found["a"]) is type(expected)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML: did not find expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML: found a tab character that violates indentation"),
        ("a: *nothing\n", 1, "not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML: but found another document"),
        (b"a: 1\nb: \xff\xfe\n", 2, "not valid YAML text: "),
        ("", 1, "is empty; a manifest is a mapping that starts with 'family:' or 'extends:'"),
        ("# nothing\n", 1, "is empty; "),
        ("- a\n- b\n", 1, "must be a mapping of keys to values, such as 'family: sam3_image'"),
        ("a: 1\nb: 2\n\na: 3\n", 4, "key 'a' stands on line 1 already; keep one"),
        ("a: {b: 1,\n  b: 2}\n", 2, "key 'b' stands on line 1 already; keep one"),
        ("a: &x\n  b: *x\n", 1, "an alias (*) may not stand inside the value that its anchor (&) names"),
        ("a: 1\n8.9: x\n", 2, "key '8.9' is not a string in YAML; put it in quotes"),
        ("on: x\n", 1, "key 'on' is not a string in YAML; put it in quotes"),
        ("[a, b]: x\n", 1, "key '...' is not a string in YAML; put it in quotes"),
        ("a: !!python/object/apply:os.system ['false']\n", 1, "tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !mine 3\n", 1, "tag '!mine' is not allowed; leave it out"),
        ("a: 0x10\n", 1, "'0x10' is not a plain decimal number; write decimal digits, or put it in quotes"),
        ("a: 010\n", 1, "'010' is not a plain decimal number; "),
        ("a: 1:30\n", 1, "'1:30' is not a plain decimal number; "),
        ("a: .nan\n", 1, "'.nan' is not a finite number; write one in decimal digits"),
        ("a: -.INF\n", 1, "'-.INF' is not a finite number; write one in decimal digits"),
        ("a: 1.0e+999\n", 1, "'1.0e+999' is not a finite number; write one in decimal digits"),
        ("a: 1234567890123456789\n", 1, "'1234567890123456789' has 19 digits, an integer has at most 18"),
        ("a: -9" + "9" * 5000, 1, f"'-{'9' * 23}...' has 5001 digits, an integer has at most 18"),
        ("a: {<<: 3}\n", 1, "'<<' takes an alias of a mapping, or a list of these"),
        ("a: " + "[" * 60 + "]" * 60, 1, "not valid YAML: nested more than 50 levels deep"),
        ("a:\n  " + "[" * 100_000, 2, "not valid YAML: nested more than 50 levels deep"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, 1, "is nested more than 50 levels"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, said: str
) -> None:
    (found,) = problems(tmp_path, text)
    assert found[1].startswith(said)
    assert line in (0, found[0])


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "9" * 19, "-" + "9" * 40])
def test_quotes_are_not_advised_for_what_was_meant_as_a_number(tmp_path: Path, number: str) -> None:
    ((_, said),) = problems(tmp_path, f"a: {number}\n")
    assert "quotes" not in said


def test_all_problems_of_a_file_are_found_at_once(tmp_path: Path) -> None:
    assert [line for line, _ in problems(tmp_path, "a: 1\na: 2\nb: 0x1\n7: x\n")] == [2, 3, 4]


def test_aliases_cannot_blow_up_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    found = problems(tmp_path, "\n".join(lines))
    assert found == [(1, "its aliases write out to more than 100000 values")]


def test_earlier_mappings_of_a_merge_list_win_and_own_keys_win_over_all(tmp_path: Path) -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2, d: 2}\nz: {d: 3, <<: [*x, *y]}\n"
    found = plain(tmp_path, text)
    assert isinstance(found, dict)
    assert found["z"] == {"a": 1, "b": 1, "c": 2, "d": 3}


def test_a_merged_value_keeps_the_line_of_its_anchor(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("x: &x {\n  a: 1}\nz: {<<: *x}\nw: *x\n")
    root, _ = read(tmp_path / "f.yaml")
    assert root is not None
    assert root.value_place(("z", "a")).line == 2
    assert root.value_place(("w", "a")).line == 2
    assert root.value_place(("w",)).line == 4
    assert root.value_place(("w", "missing", "deep")).line == 4
