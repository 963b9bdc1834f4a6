"""Suites: what a file may say, what the command line changes, and errors that name the place."""

import re
from pathlib import Path

import pytest

from coreml_prune_bench.bench.cells import lay_out
from coreml_prune_bench.bench.suite import choose, left_out, load_suite
from coreml_prune_bench.bench.suite_choice import SuiteChoice
from coreml_prune_bench.core.errors import BenchError, SuiteError

HEAD = 'description = "d"\nmodels = ["mobilenet_v2"]\n'
CONFIG = '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'


def suite_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return str(path)


def test_an_unknown_suite_is_refused_with_those_that_ship():
    with pytest.raises(SuiteError, match=r"digits, few-images, imagenet, .*quick"):
        load_suite("quik")


def test_the_shipped_suites_hold_every_algorithm_at_50_and_75_percent():
    for name in ("quick", "digits"):
        found = {(config.algorithm, config.sparsity) for config in load_suite(name).configs}
        assert found == {(a, s) for a in ("post-training", "sparse-gpt", "magnitude-pruner") for s in (0.5, 0.75)}, name


def test_a_config_can_be_for_some_networks_only(tmp_path):
    text = HEAD.replace('"mobilenet_v2"', '"mobilenet_v2", "resnet50"') + 'weights = "none"\ndata.default = "digits"\n'
    training = "training.epochs = 1\n"
    suite = load_suite(suite_file(tmp_path, text + training + CONFIG + 'models = ["resnet50"]'))
    cells = [(cell.subject.network.name, cell.algorithm) for cell in lay_out(suite, None)]
    assert cells == [("mobilenet_v2", "dense"), ("resnet50", "dense"), ("resnet50", "post-training")]


def test_the_best_recipes_are_one_for_each_network_and_sparsity():
    suite = load_suite("imagenet-best")
    found = [(name, config.sparsity) for name in suite.models for config in suite.configs if config.is_for(name)]
    assert sorted(found) == [(name, sparsity) for name in sorted(suite.models) for sparsity in (0.5, 0.75)]


def test_the_suite_in_the_docs_is_one(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "suites.md").read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "mine.yaml").write_text("global_config: {algorithm: sparse_gpt, weight_dtype: float32}")
    suite = load_suite(suite_file(tmp_path, text))
    assert len(suite.configs) == 6
    assert suite.data_for("resnet50") == "imagefolder:/data/x"


def test_a_list_of_sparsities_is_short_for_as_many_configs(tmp_path):
    suite = load_suite(suite_file(tmp_path, HEAD + CONFIG.replace("0.5", "[0.25, 0.5]")))
    assert [config.sparsity for config in suite.configs] == [0.25, 0.5]
    assert [config.name for config in suite.configs] == ["Unstructured Sparsity 25%", "Unstructured Sparsity 50%"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD.replace("models", "modles") + CONFIG, "unknown key 'modles'; did you mean 'models'?"),
        (HEAD + CONFIG + "calibration_samples = 3", "unknown key 'calibration_samples'"),
        (
            HEAD + CONFIG.replace("post-training", "blockwise-reconstruction") + "learning_rate = 0.03",
            "unknown key 'learning_rate'; did you mean 'learning_rates'?",
        ),
        (HEAD + CONFIG.replace("post-training", "gptq"), "algorithm: expected one of post-training"),
        (HEAD + CONFIG.replace("0.5", "1.5"), "sparsity: Input should be less than 1"),
        (
            HEAD + CONFIG.replace("sparsity = 0.5", ""),
            "give exactly one of sparsity, coremltools_yaml, n_m_ratio, threshold",
        ),
        (HEAD + CONFIG + "threshold = 0.1", "given: sparsity, threshold"),
        (HEAD.replace("mobilenet_v2", "mobilenet_v4") + CONFIG, "unknown network 'mobilenet_v4'; did you mean"),
        (HEAD + CONFIG + "models = ['resnet50']", "[[configs]] 1: models: 'resnet50' is not among mobilenet_v2"),
        (HEAD, "configs: give one or more [[configs]] tables"),
        (HEAD + "image_size = 16\n" + CONFIG, "image_size: Input should be greater than or equal to 32"),
        (HEAD + 'packages = "published"\nimage_size = 96\n', "image_size: published packages take images of one size"),
        ("models = [", "not TOML"),
        (HEAD + "[data]\nmobilenet_v9 = 'digits'\n" + CONFIG, "unknown network 'mobilenet_v9'"),
        (HEAD + CONFIG.replace("sparsity = 0.5", 'coremltools_yaml = "none.yaml"'), "cannot read"),
        (
            HEAD + CONFIG.replace("0.5", "50"),
            "sparsity: Input should be less than 1, got 50; it is a fraction: 50 % is",
        ),
        (HEAD + CONFIG.replace("0.5", "[0.5, 75]"), "got 75; it is a fraction: 75 % is 0.75"),
        (HEAD + CONFIG.replace("0.5", "[]"), "[[configs]] 1: sparsity: the list is empty"),
        (HEAD + CONFIG + "layers = { Linear = 30 }", "from 0 to less than 1, got 30; it is a fraction: 30 % is 0.3"),
        (
            HEAD + "training = { epochs = 1, label_smoothing = 10 }\n" + CONFIG,
            "training.label_smoothing: Input should be less than 1, got 10; it is a fraction: 10 % is 0.1",
        ),
        (HEAD + CONFIG.replace("0.5", "1000"), "Input should be less than 1, got 1000"),
        (
            HEAD.replace('["mobilenet_v2"]', '"mobilenet_v2"') + CONFIG,
            """models: expected a list, got 'mobilenet_v2'; write models = ["mobilenet_v2"]""",
        ),
        (
            HEAD + CONFIG + 'scope = { exclude = "classifier.*" }',
            """scope.exclude: expected a list, got 'classifier.*'; write exclude = ["classifier.*"]""",
        ),
        (HEAD + CONFIG + 'models = "resnet50"', "[[configs]] 1: models: expected a list, got 'resnet50'; write"),
        (HEAD + CONFIG.replace("sparsity = 0.5", 'n_m_ratio = "2:4"'), "n_m_ratio: expected a list, got '2:4'"),
        (HEAD + CONFIG + 'scope = "classifier"', "scope: expected a table, got 'classifier'"),
        (HEAD + 'data = "digits"\n' + CONFIG, """expected a table, got 'digits'; write data.default = "digits\""""),
        (HEAD + "configs = [3]", "[[configs]] 1: expected a table, got 3"),
        (HEAD + CONFIG.replace("[[configs]]", "[configs]"), "configs: expected one or more [[configs]] tables"),
        (HEAD + CONFIG.replace("post-training", "sparse_gpt"), "got 'sparse_gpt'; did you mean 'sparse-gpt'?"),
        (HEAD + 'weights = "nonne"\n' + CONFIG, "weights: Input should be 'pretrained' or 'none', got 'nonne'"),
    ],
)
def test_an_error_is_one_line_that_names_the_file_or_the_value(tmp_path, text, message):
    with pytest.raises(BenchError) as raised:
        load_suite(suite_file(tmp_path, text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    text = HEAD.replace("models", "modles") + "trials = 0\n" + CONFIG.replace("0.5", "50") + "blok_size = 2\n"
    with pytest.raises(SuiteError) as raised:
        load_suite(suite_file(tmp_path, text + CONFIG.replace("post-training", "gptq")))
    message = str(raised.value)
    for part in (
        "own.toml: 6 errors: (1) unknown key 'modles'; did you mean 'models'?",
        "models: Field required",
        "trials: Input should be greater than or equal to 1, got 0",
        "[[configs]] 1: unknown key 'blok_size'; did you mean 'block_size'?",
        "[[configs]] 1: sparsity: Input should be less than 1, got 50",
        "[[configs]] 2: algorithm: expected one of",
    ):
        assert part in message
    assert "\n" not in message


def test_two_networks_that_nobody_knows_are_both_named(tmp_path):
    with pytest.raises(BenchError, match=r"2 errors: .*'torchvison:a'.*'mobilenet_v9'"):
        load_suite(suite_file(tmp_path, HEAD.replace("mobilenet_v2", 'torchvison:a", "mobilenet_v9') + CONFIG))


def test_a_wrong_config_does_not_make_the_suite_one_without_configs(tmp_path):
    with pytest.raises(SuiteError) as raised:
        load_suite(suite_file(tmp_path, HEAD + CONFIG.replace("0.5", "50")))
    assert "give one or more" not in str(raised.value)


def test_what_is_named_nearly_right_is_answered_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(HEAD + CONFIG)
    Path("mine.yaml").write_text("")
    for given, words in (
        ("quikc", "did you mean 'quick'?"),
        ("quick.toml", "did you mean 'quick'?"),
        ("mien.toml", "did you mean 'mine.toml'?"),
        ("mine.yaml", "mine.yaml is a file whose name does not end in .toml"),
    ):
        with pytest.raises(SuiteError) as raised:
            load_suite(given)
        assert words in str(raised.value)
    with pytest.raises(SuiteError, match=r"no 'sparse_gpt' among its algorithms: .*; did you mean 'sparse-gpt'\?"):
        choose(load_suite("quick"), algorithms=["sparse_gpt"])
    with pytest.raises(SuiteError, match=r"no network 'resnet5' here, .*; did you mean 'resnet50'\?"):
        choose(load_suite("digits"), data=["resnet5=imagefolder:a"])


def test_an_unknown_suite_lists_those_that_ship():
    with pytest.raises(SuiteError, match=r"no suite 'qick': give one of .*digits, few-images, imagenet, .*quick"):
        load_suite("qick")


def test_core_ml_tools_yaml_is_read_beside_the_suite_and_names_the_config(tmp_path):
    (tmp_path / "half.yaml").write_text("config_type: OpMagnitudePrunerConfig\nglobal_config: {target_sparsity: 0.5}\n")
    suite = load_suite(suite_file(tmp_path, HEAD + CONFIG.replace("sparsity = 0.5", 'coremltools_yaml = "half.yaml"')))
    (config,) = suite.configs
    assert config.name == "half"
    assert config.coremltools == {"config_type": "OpMagnitudePrunerConfig", "global_config": {"target_sparsity": 0.5}}


def test_the_command_line_chooses_networks_algorithms_trials_and_data():
    suite = choose(
        load_suite("digits"),
        models=["resnet50"],
        algorithms=["sparse-gpt"],
        trials=5,
        data=["imagefolder:a", "resnet50=imagefolder:b=c"],
    )
    assert suite.models == ("resnet50",)
    assert {config.algorithm for config in suite.configs} == {"sparse-gpt"}
    assert suite.trials == 5
    assert suite.data_for("mobilenet_v2") == "imagefolder:a"
    assert suite.data_for("resnet50") == "imagefolder:b=c"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (["digits", "imagefolder:a"], "--data imagefolder:a: digits was given already; with NETWORK= it is of one"),
        (
            ["resnet50=imagefolder:a", "digits", "resnet50=imagefolder:b"],
            "imagefolder:a was given already for resnet50",
        ),
    ],
)
def test_of_two_data_sets_of_one_network_none_is_left_out_without_a_word(data, told):
    with pytest.raises(SuiteError, match=re.escape(told)):
        choose(load_suite("digits"), data=data)


def test_what_a_suite_names_for_one_network_stays_when_the_default_is_replaced(tmp_path):
    text = HEAD + "[data]\ndefault = 'digits'\nmobilenet_v2 = 'imagefolder:turned'\n" + CONFIG
    suite = choose(load_suite(suite_file(tmp_path, text)), data=["imagefolder:upright"])
    assert suite.data_for("mobilenet_v2") == "imagefolder:turned"
    assert suite.data_for("resnet50") == "imagefolder:upright"


def test_choosing_what_a_suite_does_not_have_says_what_it_has():
    with pytest.raises(SuiteError, match="no 'vgg16' among its networks: mobilenet_v2"):
        choose(load_suite("quick"), models=["vgg16"])
    with pytest.raises(SuiteError, match="no 'gptq' among its algorithms: post-training, sparse-gpt, magnitude-pruner"):
        choose(load_suite("quick"), algorithms=["gptq"])


def test_configs_that_a_table_would_call_the_same_are_refused_unless_labels_tell_them_apart(tmp_path):
    two = HEAD + 2 * CONFIG.replace("post-training", "sparse-gpt")
    with pytest.raises(
        SuiteError, match=r"2 .*sparse-gpt for mobilenet_v2 .* called 'Unstructured Sparsity 50%'.*label"
    ):
        load_suite(suite_file(tmp_path, two + "calibration_samples = 64\n"))
    assert len(load_suite(suite_file(tmp_path, two + 'calibration_samples = 64\nlabel = "few"\n')).configs) == 2


def test_a_network_of_one_s_own_in_a_suite_whose_configs_are_for_others():
    own = "torchvision:efficientnet_b0"
    with pytest.raises(SuiteError, match=r"configs for resnet50, mobilenet_v2, .* alone; .* own to prune"):
        choose(load_suite("imagenet-best"), own=[own])
    (line,) = left_out(choose(load_suite("reconstruction"), own=[own]), [own])
    assert line.startswith(f"{own} is not pruned by blockwise-reconstruction: in suite reconstruction, ")
    assert not left_out(choose(load_suite("imagenet"), own=[own]), [own])


def test_a_suite_without_data_asks_for_it():
    with pytest.raises(SuiteError, match="names no data for resnet50: give --data"):
        load_suite("imagenet").data_for("resnet50")


def test_a_network_that_is_replaced_need_not_be_there(tmp_path):
    """A suite beside the networks of somebody else; those that stay have to be."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'description = "d"\nmodels = ["gone.py:net", "resnet50"]\ndata.default = "digits"\n'
        '[[configs]]\nalgorithm = "post-training"\nsparsity = 0.5\n'
    )
    own = ["torchvision:resnet18"]
    assert SuiteChoice(str(path), own=own).load().models == ("torchvision:resnet18",)
    assert SuiteChoice(str(path), own=own, models=["resnet50"]).load().models == ("resnet50", "torchvision:resnet18")
    for choice in (SuiteChoice(str(path)), SuiteChoice(str(path), own=own, models=[f"{tmp_path}/gone.py:net"])):
        with pytest.raises(SuiteError, match=r"gone\.py"):
            choice.load()


def test_a_suite_of_more_cells_than_anybody_measures_is_refused(tmp_path):
    """A billion cells are ten letters."""
    config = '[[configs]]\nalgorithm = "blockwise-reconstruction"\nsparsity = 0.5\n'
    suite = load_suite(suite_file(tmp_path, HEAD + "trials = 1_000_000_000\n" + config))
    with pytest.raises(SuiteError, match=r"suite own has 1,000,000,000 cells .*expected at most 100,000"):
        lay_out(suite, None)
