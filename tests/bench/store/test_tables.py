"""Results of runs that are whole or missing, and tables whose columns are a contract."""

import csv
import json
import math
import os
import time
import weakref

import pandas as pd
import pytest

from bench.config.schema import CONDITIONS
from bench.store import files, run_files, schema, study_tables, tables
from bench.store.records import Cost, Diagnostic, Row, RunResult, Work
from bench.store.schema import RESULTS, TABLES

RUNS = (
    *("dataset", "method", "seed", "role", "status", "message", "notes"),
    *("wall_s", "cpu_s", "flops", "decoder_passes", "encoder_passes"),
    *("stopped_by", "formula_flops", "peak_memory_mb", "overrun_flops", "overrun_s"),
    *("query_flops", "query_s", "evaluation_s", "concurrent", "timed_seed", "source", "key"),
)


def result(spec, **fields):
    rows = [Row(look, m, -1.5 - look, 0.1, "nats", Cost(1.0 + look, 0.5, 1e6, 10, 20)) for look in (0, 1) for m in "ab"]
    return RunResult(**{"spec": spec, "rows": rows, "cost": Cost(2.0, 0.5, 1e6, 10, 20), "parameters": {}, **fields})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path


def test_a_run_returns_as_it_was(folder, run_spec):
    spec = run_spec()
    before = result(
        spec,
        message="é |",
        stopped_by="max_seconds",
        notes="undone: it drew",
        peak_memory_mb=3.5,
        diagnostics=[Diagnostic(1, "a", "khat", 0.3)],
        work=[Work("k-means", 2, 1e6, "formula")],
        densities=[("truth", 0.1, -0.2, -3.0)],
        posteriors=[("truth", 4, 7, -0.3, [0.1, 0.2], 1e-3)],
        signals=[("truth", 4, 63, [0.1, 0.2], [0.3, -0.4])],
        references=[(0, 1.001, 300.0, [0.5, -1.0, 2.0])],
        parameters={"steps": 3, "name": None},
    )
    run_files.write_run(folder, before)
    assert run_files.read_run(folder, spec) == before


def test_a_missing_standard_error_returns_as_nan(folder, run_spec):
    spec = run_spec()
    run_files.write_run(folder, result(spec, rows=[Row(0, "a", 1.0, math.nan, "nats", Cost())]))
    assert math.isnan(run_files.read_run(folder, spec).rows[0].stderr)


def test_a_run_cut_short_anywhere_is_missing(folder, run_spec):
    spec = run_spec()
    run_files.write_run(folder, result(spec))
    path = run_files.run_path(folder, spec)
    whole = path.read_bytes()
    for length in (*range(0, len(whole.rstrip()), 17), len(whole.rstrip()) - 1):
        path.write_bytes(whole[:length])
        assert run_files.read_run(folder, spec) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(schema=schema.SCHEMA + 1),
        lambda content: content.pop("schema"),
        lambda content: content.pop("rows"),
        lambda content: content.pop("signals"),
        lambda content: content.pop("cost"),
        lambda content: content.update(novelty=1),
        lambda content: content["rows"][0].pop("value"),
        lambda content: content["rows"][0].update(value="1.0"),
        lambda content: content["cost"].update(flops="many"),
        lambda content: content.update(rows=None),
        lambda content: content.update(rows=[None]),
        lambda content: content.update(status="weird"),
        lambda content: content.update(message=3),
        lambda content: content["spec"].update(seed=7),
        lambda content: content["spec"].update(dataset="figure8"),
    ],
)
def test_a_run_of_another_form_is_not_believed(folder, run_spec, change):
    """Though it has the right digest."""
    spec = run_spec()
    run_files.write_run(folder, result(spec))
    path = run_files.run_path(folder, spec)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(run_files.seal(content)))
    assert run_files.read_run(folder, spec) is None


MESSAGES = {
    "stopped by --max-flops at 5e+10 FLOPs": "max_flops",
    "stopped by --max-seconds after 3 s": "max_seconds",
    "ValueError: not stopped by --max-flops at all": "",
    "": "",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_run_stored_before_limits_were_a_field_tells_which_one_ended_it(folder, run_spec, message):
    spec = run_spec()
    run_files.write_run(folder, result(spec, message=message))
    path = run_files.run_path(folder, spec)
    content = json.loads(path.read_text())
    assert content.pop("stopped_by") == ""
    path.write_text(json.dumps(run_files.seal(content)))
    found = run_files.read_run(folder, spec)
    assert (found.message, found.stopped_by) == (message, MESSAGES[message])


def test_a_table_stored_before_limits_were_a_column_tells_which_one_ended_a_run(folder, run_spec):
    ended = zip((*MESSAGES, "elsewhere"), (*MESSAGES.values(), "max_flops"), strict=True)
    runs = [result(run_spec(seed=i), message=m, stopped_by=by) for i, (m, by) in enumerate(ended)]
    tables.write_tables(folder, runs)
    files.write_json(folder / "study.json", {"schema": schema.SCHEMA})
    assert study_tables.read(folder).runs["stopped_by"].tolist() == [each.stopped_by for each in runs]
    tables.write_table(folder / "runs.parquet", tables.read_table(folder, "runs").drop(columns="stopped_by")[:-1])
    assert study_tables.read(folder).runs["stopped_by"].tolist() == [*MESSAGES.values()]


def test_a_run_that_was_edited_is_not_believed(folder, run_spec):
    spec = run_spec()
    run_files.write_run(folder, result(spec))
    path = run_files.run_path(folder, spec)
    path.write_text(path.read_text().replace("-1.5", "-1.4", 1))
    assert run_files.read_run(folder, spec) is None


def test_a_run_under_another_name_is_not_believed(folder, run_spec):
    one, other = run_spec(seed=0), run_spec(seed=1)
    run_files.write_run(folder, result(one))
    run_files.run_path(folder, other).write_bytes(run_files.run_path(folder, one).read_bytes())
    assert run_files.read_run(folder, other) is None


def test_a_run_nested_without_end_is_not_believed(folder, run_spec):
    run_files.run_path(folder, run_spec()).write_text('{"schema":' + "[" * 100_000 + "]" * 100_000 + "}")
    assert run_files.read_run(folder, run_spec()) is None


def test_what_is_not_believed_is_set_aside_and_not_lost(folder, run_spec):
    for number in (1, 2):
        run_files.run_path(folder, run_spec()).write_text(f"foreign {number}")
        aside = run_files.set_aside(folder, run_spec())
        assert aside.name == f"{run_spec().key}.not-believed-{number}.json"
        assert aside.read_text() == f"foreign {number}"
    assert run_files.set_aside(folder, run_spec()) is None


@pytest.mark.parametrize("content", ["[]", "null", "3", '"text"', "\x00", "é"])
def test_a_run_that_is_something_else_is_missing(folder, run_spec, content):
    run_files.run_path(folder, run_spec()).write_bytes(content.encode("latin-1"))
    assert run_files.read_run(folder, run_spec()) is None


def test_the_columns_are_those_of_the_contract(folder, run_spec):
    first = result(run_spec(), parameters={"steps": 3})
    second = result(run_spec(method="mapa", seed=1), parameters={"centres": 45, "name": "x"})
    tables.write_tables(folder, [first, second])
    rows, runs = tables.read_table(folder, "measurements"), tables.read_table(folder, "runs")
    assert tuple(rows.columns) == TABLES["measurements"]
    assert tuple(runs.columns) == (*RUNS, *CONDITIONS, "p_steps", "p_centres", "p_name")
    assert {*RUNS} == RESULTS
    assert len(rows) == 8
    assert len(runs) == 2
    assert runs["p_steps"].isna().tolist() == [False, True]


def as_read(text):
    """What a field of CSV says: a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return {"": None, "True": True, "False": False}.get(text, text)


@pytest.mark.parametrize("name", ["measurements", "runs"])
def test_parquet_and_csv_agree(folder, run_spec, name):
    hostile = result(run_spec(), message='a,"b"\nc', status="failed", parameters={"x": 1 / 3})
    lone = result(run_spec(seed=1), parameters={"x": None}, rows=[Row(0, "a", 1e-300, math.nan, "nats", Cost())])
    tables.write_tables(folder, [hostile, lone])
    parquet = tables.read_table(folder, name)
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == list(parquet.columns)
    assert len(rows) == len(parquet)
    for row, kept in zip(rows, parquet.itertuples(index=False), strict=True):
        expected = [None if value == "" or pd.isna(value) else value for value in kept]
        assert [as_read(text) for text in row] == expected


def test_every_list_of_a_run_has_its_table(folder, run_spec):
    references = [(0, 1.001, 300.0, [0.5, -1.0, 2.0]), (0, 1.001, 300.0, [0.6, -1.1, 2.1])]
    runs = [
        result(
            run_spec(method=method),
            diagnostics=[Diagnostic(1, "a", "khat", 0.3)],
            work=[Work("k-means", 2, 1e6, "formula")],
            densities=[("truth", 0.1, -0.2, -3.0), (method, 0.1, -0.2, -4.0)],
            posteriors=[("truth", 4, 7, -0.3, [0.1, 0.2], 0.5), (method, 4, 7, -0.3, [0.1, 0.2], 0.25)],
            signals=[(name, 4, j, [0.1, 0.2], [0.5, float(j)]) for name in ("truth", method) for j in (0, 1)],
            references=references,
        )
        for method in ("vae", "mapa")
    ]
    tables.write_tables(folder, runs)
    diagnostics, work, densities, posteriors, draws = (
        tables.read_table(folder, name) for name in ("diagnostics", "work", "densities", "posteriors", "references")
    )
    columns = ["method", "checkpoint", "metric", "diagnostic", "value"]
    assert diagnostics[columns].to_numpy().tolist() == [[m, 1, "a", "khat", 0.3] for m in ("vae", "mapa")]
    columns = ["method", "name", "calls", "flops", "by"]
    assert work[columns].to_numpy().tolist() == [[m, "k-means", 2, 1e6, "formula"] for m in ("vae", "mapa")]
    assert sorted(densities["method"]) == ["mapa", "truth", "vae"]
    found = [
        (row.method, row.point, row.index, row.code, [*row.x], row.probability) for row in posteriors.itertuples(False)
    ]
    expected = [("truth", 4, 7, -0.3, [0.1, 0.2], 0.5), *((m, 4, 7, -0.3, [0.1, 0.2], 0.25) for m in ("mapa", "vae"))]
    assert sorted(found) == sorted(expected)
    signals = tables.read_table(folder, "signals")
    assert list(signals.columns) == ["dataset", "method", "seed", "point", "draw", "x", "signal"]
    found = [(row.method, row.point, row.draw, [*row.x], [*row.signal]) for row in signals.itertuples()]
    expected = [(name, 4, j, [0.1, 0.2], [0.5, float(j)]) for name in ("mapa", "truth", "vae") for j in (0, 1)]
    assert sorted(found) == expected
    assert not any((folder / f"{name}.csv").exists() for name in ("posteriors", "signals"))
    assert [(row.point, row.draw, row.rhat, row.ess, row.z.tolist()) for row in draws.itertuples()] == [
        (point, draw, rhat, ess, z) for draw, (point, rhat, ess, z) in enumerate(references)
    ]
    assert (folder / "diagnostics.csv").exists()
    assert (folder / "work.csv").exists()


def test_tables_of_nothing_have_their_columns(folder):
    tables.write_tables(folder, [])
    assert tuple(tables.read_table(folder, "measurements").columns) == TABLES["measurements"]


def test_tables_of_failures_alone_have_their_columns(folder, run_spec):
    tables.write_tables(folder, [result(run_spec(), rows=[], status="failed", message="why")])
    assert tuple(tables.read_table(folder, "measurements").columns) == TABLES["measurements"]
    assert tables.read_table(folder, "runs")["message"].tolist() == ["why"]


@pytest.mark.parametrize(("first", "second"), [(3, "many"), (3, None), (0.5, "x"), (True, 3), (None, None), (3, 0.5)])
def test_methods_may_differ_in_the_type_of_a_hyperparameter(folder, run_spec, first, second):
    specs = [run_spec(method="one"), run_spec(method="two")]
    for spec, value in zip(specs, (first, second), strict=True):
        run_files.write_run(folder, result(spec, parameters={"steps": value}))
    tables.write_tables(folder, [run_files.read_run(folder, spec) for spec in specs])
    kept = tables.read_table(folder, "runs")["p_steps"]
    assert [None if pd.isna(value) else str(value) for value in kept] in (
        [None if value is None else str(value) for value in (first, second)],
        [None if value is None else str(float(value)) for value in (first, second) if not isinstance(value, str)],
    )


def test_the_table_of_runs_tells_how_runs_ended_as_their_files_do(folder, run_spec):
    specs = [run_spec(seed=seed) for seed in range(3)]
    results = [result(specs[0], evaluation_s=0.5), result(specs[1], status="failed", message="no"), result(specs[2])]
    for each in results[:2]:
        run_files.write_run(folder, each)
    assert run_files.endings(folder) == {}
    tables.write_tables(folder, results)
    os.utime(folder / "runs.parquet", ns=(0, time.time_ns() + 10**9))
    found = run_files.endings(folder)  # the file of the third is not there
    assert found == {spec.key: run_files.read_ending(folder, spec) for spec in specs[:2]}
    assert found[specs[0].key] == run_files.Ending("done", "", 2.5)
    assert run_files.read_ending(folder, specs[2]) is None


def test_the_table_of_runs_tells_nothing_of_files_that_are_no_older(folder, run_spec):
    spec = run_spec()
    run_files.write_run(folder, result(spec))
    tables.write_tables(folder, [result(spec)])
    for apart, known in ((-1, 1), (0, 0), (1, 0)):
        os.utime(run_files.run_path(folder, spec), ns=(0, (folder / "runs.parquet").stat().st_mtime_ns + apart))
        assert len(run_files.endings(folder)) == known


@pytest.mark.parametrize("columns", [None, ["key"]])
def test_a_table_of_runs_that_cannot_be_read_tells_nothing(folder, run_spec, columns):
    run_files.write_run(folder, result(run_spec()))
    path = folder / "runs.parquet"
    pd.DataFrame(columns=columns).to_parquet(path) if columns else path.write_bytes(b"PAR1")
    assert run_files.endings(folder) == {}


def test_a_table_is_written_before_the_next_is_made(folder, run_spec, monkeypatch):
    """So that thousands of runs are not held as nine tables at once."""
    seen, most = [], []

    def write(path, table):
        seen.append(weakref.ref(table))
        most.append(len({id(each()) for each in seen if each() is not None}))

    monkeypatch.setattr(tables, "write_table", write)
    tables.write_tables(folder, [result(run_spec())])
    assert len(most) == 13
    assert max(most) <= 2
