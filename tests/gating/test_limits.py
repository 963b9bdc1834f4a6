"""Rules files: what they say, and one line for what they cannot."""

import pytest

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.gating.limits import Key, Rules, read_rules

KEYS = [
    Key("resnet50", "dense", "Float16"),
    Key("resnet50", "sparse-gpt", "Unstructured Sparsity 50%"),
    Key("mobilenet_v2", "sparse-gpt", "Unstructured Sparsity 75%"),
    Key("resnet50", "sparse-gpt", "Unstructured Sparsity 50%", "all"),
]


@pytest.fixture
def read(tmp_path):
    def call(text):
        (tmp_path / "gate.toml").write_text(text)
        return read_rules(tmp_path / "gate.toml")

    return call


def test_an_empty_file_is_the_defaults(read):
    assert read("").of(KEYS[0]) == Rules()


def test_overrides_change_a_part_for_a_part_of_the_rows(read):
    book = read("""
alpha = 0.01
fail = ["worse", "missing", "cannot tell"]

[accuracy]
allowed_loss = 0.5

[[override]]
model = "resnet50"
accuracy = {same_within = 2}

[[override]]
model = "resnet50"
algorithm = "sparse-gpt"
config = "Unstructured Sparsity 50%"
compute_units = "all"
fail = []
accuracy.allowed_loss = 3
latency.allowed_percent = 10
""")
    book.check_rows(KEYS)
    rules = {key: book.of(key) for key in KEYS}
    assert [rules[key].accuracy.allowed_loss for key in KEYS] == [0.5, 0.5, 0.5, 3]
    assert [rules[key].accuracy.same_within for key in KEYS] == [2, 2, 1, 2]
    assert [rules[key].latency.allowed_percent for key in KEYS] == [5, 5, 5, 10]
    assert [len(rules[key].fail) for key in KEYS] == [3, 3, 3, 0]
    assert {rules[key].alpha for key in KEYS} == {0.01}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('model = "resnet5"', r"\[\[override\]\] 1: no row has model 'resnet5'; did you mean 'resnet50'\?"),
        ('config = "Unstructured Sparsity 57%"', "no row has config .*; did you mean 'Unstructured Sparsity 75%'"),
        ('compute_units = "al"', "no row has compute_units 'al'; did you mean 'all'"),
        (
            'model = "mobilenet_v2"\nconfig = "Unstructured Sparsity 50%"',
            "no row is 'mobilenet_v2, Unstructured Sparsity 50%'; did you mean 'mobilenet_v2, Unstructured .* 75%'",
        ),
    ],
)
def test_a_rule_for_a_row_that_does_not_exist_names_the_nearest(read, override, message):
    with pytest.raises(BenchError, match=message):
        read(f"[[override]]\n{override}\n").check_rows(KEYS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha = ", "not TOML"),
        ("alpha = 2", r"alpha: Input should be less than 0\.5"),
        ("alfa = 0.1", "unknown key 'alfa'; did you mean 'alpha'"),
        ("[accuracy]\nallowed_los = 1", r"unknown key 'accuracy\.allowed_los'; did you mean 'allowed_loss'"),
        ("[accuracy]\nallowed_loss = -1", r"accuracy\.allowed_loss: Input should be greater"),
        ("[latency]\nallowed_percent = nan", r"latency\.allowed_percent: Input should be a finite number"),
        ('fail = ["bad"]', r"fail\.0: Input should be 'better'"),
        ("override = 3", r"expected one or more \[\[override\]\] tables"),
        ("[[override]]\naccuracy.allowed_loss = 1", "1: name its rows by one or more of model, algorithm"),
        ("[[override]]\nmodel = 3", "each a string"),
        ('[[override]]\nmodel = "a"\nalpha = 0.1', "alpha: holds for all rows together"),
        ('[[override]]\nmodel = "a"\n[[override]]\nmodle = "a"\nmodel = "a"', "2: unknown key 'modle'"),
    ],
)
def test_what_a_file_cannot_say_is_one_line(read, text, message):
    with pytest.raises(BenchError, match=message) as raised:
        read(text)
    assert "gate.toml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_everything_that_is_wrong_is_told_at_once(read):
    text = 'alfa = 0.1\nfail = "worse"\n[accuracy]\nallowed_loss = -1\n[[override]]\nalpha = 1\n'
    with pytest.raises(BenchError) as raised:
        read(text + '[[override]]\nmodel = "a"\nsize.allowed_percent = "x"')
    message = str(raised.value)
    for part in (
        "gate.toml: 5 errors: (1) unknown key 'alfa'; did you mean 'alpha'?",
        "fail: expected a list, got 'worse'.",
        "accuracy.allowed_loss: Input should be greater than or equal to 0, got -1",
        "[[override]] 1: name its rows by one or more of model",
        "[[override]] 2: size.allowed_percent: Input should be a valid number",
    ):
        assert part in message
    assert "\n" not in message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BenchError, match=r"cannot read the rules .*nowhere\.toml: No such file"):
        read_rules(tmp_path / "nowhere.toml")
