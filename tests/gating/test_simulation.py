"""The simulation behind results/gate/simulation.md still runs, and that table says what docs/gate.md does."""

from pathlib import Path

from tests.gating.simulation import main, real_pairs

TABLE = Path(__file__).parents[2] / "results" / "gate" / "simulation.md"


def lines(text: str) -> list[dict[str, str]]:
    """Every line of both tables, by the names of its columns."""
    found, names = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| What"):
            names = cells
        elif line.startswith("| "):
            found.append(dict(zip(names, cells, strict=True)))
    return found


def test_the_script_makes_the_lines_of_the_table(capsys):
    main(1)
    assert [line["What"] for line in lines(capsys.readouterr().out)] == [
        line["What"] for line in lines(TABLE.read_text())
    ]


def test_unchanged_gates_alarm_in_at_most_5_percent_and_a_lost_point_is_found_in_95():
    alarms = {}
    for line in lines(TABLE.read_text()):
        drifts_apart = "two sessions" in line["What"] and line["Noise"] in ("drifting", "everything")
        if not (drifts_apart and line["Allowed"] == "0 %") and "hurried" not in line["What"]:
            alarms[line["What"], line.get("Noise"), line.get("Allowed")] = float(line["Alarms"].split()[0])
    unchanged = [share for (what, _, _), share in alarms.items() if what.startswith("nothing changed")]
    assert len(unchanged) == 15
    assert max(unchanged) <= 5
    for pair in ("SparseGPT 40 % (-0.86)", "post-training 20 % (-1.14)"):
        assert alarms[f"1 point lost, changed as dense, {pair}", None, None] > 95


def test_the_pairs_are_those_of_the_records():
    # Of 700 images, 30 change between the dense network and either of the first two; 43 in the fourth pair.
    assert [round(700 * pair.changed) for pair in real_pairs()] == [30, 30, 39, 43, 56]
