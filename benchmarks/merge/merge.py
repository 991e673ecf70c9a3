"""MERGE of 100,000 rows into 10,000,000, beside delta-rs and a rewrite by DuckDB.

    python merge.py --tidewater PROGRAM [--rows N] [--runs N] [--folder DIR]

Needs: pip install psycopg[binary] duckdb deltalake pyarrow. Each system works on a table of its own with the same rows,
seven columns in ten files. Half of the source rows change rows that are spread over all keys, half are new. Printed
are medians: wall and CPU seconds of the statement alone, bytes that it wrote, and the peak memory of the process.
"""

import argparse
import multiprocessing
import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import time

COLUMNS = "id BIGINT, customer BIGINT, status TEXT, amount DOUBLE PRECISION, quantity INT, note TEXT, at TIMESTAMP"
FILES = 10


def select(first, last, source="generate_series({first}, {last}) AS g(id)"):
    """The same rows in SQL of PostgreSQL and of DuckDB."""
    rows = source.format(first=first, last=last)
    return f"""SELECT id::bigint AS id, (id * 7919 % 100000)::bigint AS customer, 'status ' || (id % 5) AS status,
        (id % 10007)::double precision / 7 AS amount, (id % 13)::int AS quantity,
        'note of order ' || (id * 31 % 1000003) AS note,
        timestamp '2026-01-01' + (id % 31536000) * interval '1 second' AS at FROM {rows}"""


def source(rows, newest):
    """Keys of the source: spread over all of the table, or its newest 2 %; and as many new ones."""
    half = rows // 200
    step, first = (rows // half, 0) if not newest else (max(1, rows // 50 // half), rows - rows // 50)
    return f"(SELECT n * {step} + {first} + 1 AS id FROM generate_series(0, {half - 1}) AS g(n) " \
           f"UNION ALL SELECT n + {rows + 1} FROM generate_series(0, {half - 1}) AS h(n)) AS s"


def written(folder, before):
    return sum(f.stat().st_size for f in pathlib.Path(folder).rglob("*") if f.is_file() and f not in before)


def files(folder):
    return {f for f in pathlib.Path(folder).rglob("*") if f.is_file()}


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_of(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tidewater(program, folder, rows, newest, mode):
    import psycopg

    port = free_port()
    server = subprocess.Popen(
        [program, "serve", "--data-dir", folder, "--pg-listen", f"127.0.0.1:{port}",
         "--flight-listen", f"127.0.0.1:{free_port()}", "--http-listen", f"127.0.0.1:{free_port()}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                c = psycopg.connect(f"host=127.0.0.1 port={port} user=tidewater dbname=lake", autocommit=True)
                break
            except psycopg.OperationalError:
                time.sleep(0.2)
        c.execute(f"CREATE TABLE t ({COLUMNS}) TBLPROPERTIES ('write.merge.mode' = '{mode}')")
        part = rows // FILES
        for i in range(FILES):
            c.execute("INSERT INTO t " + select(i * part + 1, (i + 1) * part))
        c.execute(f"CREATE TABLE s AS {select(0, 0, source(rows, newest))}")
        scan = "SELECT sum(amount), count(DISTINCT customer), max(at) FROM t"
        c.execute(scan)
        clean = timed(lambda: c.execute(scan).fetchall())
        # The peak of the statement, not of what made the table.
        pathlib.Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        before, cpu, start = files(folder), cpu_of(server.pid), time.perf_counter()
        c.execute("""MERGE INTO t USING s ON t.id = s.id
            WHEN MATCHED THEN UPDATE SET amount = s.amount + 1, status = 'changed'
            WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.customer, s.status, s.amount, s.quantity, s.note, s.at)""")
        out = {"wall": time.perf_counter() - start, "cpu": cpu_of(server.pid) - cpu,
               "bytes": written(folder, before), "peak": peak_of(server.pid)}
        check(c.execute("SELECT count(*), count(*) FILTER (WHERE status = 'changed') FROM t").fetchone(), rows)
        out["scan"] = timed(lambda: c.execute(scan).fetchall()) / clean
        return out
    finally:
        server.terminate()
        server.wait()


def timed(work):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check(found, rows):
    half = rows // 200
    if tuple(found) != (rows + half, half):
        raise SystemExit(f"void: {found} of {rows}")


def own_usage():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def parquet(folder, rows):
    import duckdb

    d = duckdb.connect()
    part = rows // FILES
    for i in range(FILES):
        d.execute(f"COPY ({select(i * part + 1, (i + 1) * part)}) TO '{folder}/{i}.parquet' (COMPRESSION zstd)")


def delta(folder, rows, newest, _):
    import duckdb
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from deltalake import DeltaTable, write_deltalake

    raw = pathlib.Path(folder) / "raw"
    raw.mkdir()
    parquet(raw, rows)
    at = f"{folder}/t"
    for i in range(FILES):
        write_deltalake(at, pq.read_table(raw / f"{i}.parquet"), mode="append")
    shutil.rmtree(raw)
    changes = duckdb.connect().sql(select(0, 0, source(rows, newest))).to_arrow_table()
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, cpu, start = files(at), own_usage(), time.perf_counter()
    (DeltaTable(at).merge(changes, "t.id = s.id", source_alias="s", target_alias="t")
        .when_matched_update({"amount": "s.amount + 1", "status": "'changed'"})
        .when_not_matched_insert_all().execute())
    out = {"wall": time.perf_counter() - start, "cpu": own_usage() - cpu, "bytes": written(at, before),
           "peak": peak_of("self")}
    found = DeltaTable(at).to_pyarrow_table(columns=["status"]).column(0).cast("string")
    check((len(found), pc.sum(pc.equal(found, "changed")).as_py()), rows)
    return out


def duckdb_rewrite(folder, rows, newest, _):
    """What a rewrite has to do at least: read all, join, write all."""
    import duckdb

    parquet(folder, rows)
    d = duckdb.connect()
    d.execute(f"CREATE TABLE s AS {select(0, 0, source(rows, newest))}")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, cpu, start = files(folder), own_usage(), time.perf_counter()
    d.execute(f"""COPY (SELECT coalesce(t.id, s.id) id, coalesce(t.customer, s.customer) customer,
        CASE WHEN t.id IS NULL THEN s.status WHEN s.id IS NULL THEN t.status ELSE 'changed' END status,
        CASE WHEN t.id IS NULL THEN s.amount WHEN s.id IS NULL THEN t.amount ELSE s.amount + 1 END amount,
        coalesce(t.quantity, s.quantity) quantity, coalesce(t.note, s.note) note, coalesce(t.at, s.at) AS "at"
        FROM '{folder}/*.parquet' t FULL JOIN s ON t.id = s.id) TO '{folder}/out.parquet' (COMPRESSION zstd)""")
    out = {"wall": time.perf_counter() - start, "cpu": own_usage() - cpu, "bytes": written(folder, before),
           "peak": peak_of("self")}
    check(d.execute(f"SELECT count(*), count(*) FILTER (status = 'changed') FROM '{folder}/out.parquet'").fetchone(), rows)
    return out


def child(queue, work, arguments):
    out = None
    try:
        out = work(*arguments)
    finally:
        queue.put(out)


def run(work, folder, *arguments):
    """In a process of its own, so that memory is its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=child, args=(queue, work, (str(folder), *arguments)))
    process.start()
    out = queue.get()
    process.join()
    shutil.rmtree(folder, ignore_errors=True)
    if out is None:
        raise SystemExit("a run failed")
    return out


def main():
    multiprocessing.set_start_method("fork")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tidewater", required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/tmp/merge-benchmark"))
    options = parser.parse_args()

    def ours(folder, rows, newest, mode):
        return tidewater(options.tidewater, folder, rows, newest, mode)

    systems = [("Tidewater, merge-on-read", ours, "merge-on-read"), ("Tidewater, copy-on-write", ours, "copy-on-write"),
               ("delta-rs", delta, None), ("DuckDB, rewriting Parquet", duckdb_rewrite, None)]
    for newest in (False, True):
        print(f"\n{options.rows:,} rows, {options.rows // 100:,} merged, "
              f"{'newest 2 %' if newest else 'spread over all keys'}; medians of {options.runs}\n")
        print("| | wall s | CPU s | MB written | peak MiB | scan afterwards |\n|---|---|---|---|---|---|")
        results = {name: [] for name, *_ in systems}
        for _ in range(options.runs):
            for name, work, mode in systems:
                results[name].append(run(work, options.folder / "t", options.rows, newest, mode))
        for name, all_runs in results.items():
            median = {k: statistics.median(r[k] for r in all_runs) for k in all_runs[0]}
            scan = f"{median['scan']:.2f}x" if "scan" in median else ""
            print(f"| {name} | {median['wall']:.2f} | {median['cpu']:.2f} | {median['bytes'] / 1e6:.1f} | "
                  f"{median['peak']:.0f} | {scan} |", flush=True)


if __name__ == "__main__":
    main()
