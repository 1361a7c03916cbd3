"""What each rank reads and computes, and what nodes fetch from an object store: with one stream and with several.

    python benchmarks/nodes.py [FOLDER_OF_PROCESSED_FILES] [--streams 8] [--epochs 20] [--write]

1. Real processes, as many as there are ranks, walk epochs of one dataset in batches of the same global size. What a
   rank read is what the kernel counted for it, and its CPU time is user and system time of its own.
2. Real processes of several nodes, a cache folder for each node, fetch from an HTTP server on this machine, which
   counts what it sends. It is what the plan of an epoch says that they need.
3. So the plan alone is asked about a cluster: no data is needed to know which shards a rank touches.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from harness.recording import arguments_of, files_of, machine, write_results
from numpy.typing import NDArray

import hexshards
from hexshards.conversion.options import CONVERT
from hexshards.loading.options import LoaderSpec
from hexshards.loading.order import EpochPlan, plan_epoch
from hexshards.loading.streams import RankShare, plan_streams
from hexshards.units import show_bytes

GLOBAL_BATCH = 1024
CUT = {"shard_positions": 16_384, "block_positions": 2_048}
"""Small shards and blocks: a small dataset has as many for each stream as a large one with the usual sizes."""

WORLDS = (1, 2, 4, 8)
NODES, ON_NODE = 8, 8
BIG_POSITIONS, POSITION_BYTES = 97_000_000, 23.7
"""Of the cluster's dataset; bytes as benchmarks/results/loading.md has them for real games."""

CONTEXT = get_context("fork")  # every interpreter that imports torch takes two seconds


class Used(NamedTuple):
    """What one process took for its epochs."""

    read_bytes: int
    cpu_s: float
    rows: int


def in_processes(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each job gives, in a process of its own, all at once."""
    pipes = [CONTEXT.Pipe(duplex=False) for _ in jobs]
    processes = [CONTEXT.Process(target=_send, args=(pipe[1], job)) for pipe, job in zip(pipes, jobs, strict=True)]
    for process in processes:
        process.start()
    answers = [pipe[0].recv() for pipe in pipes]
    for process in processes:
        process.join()
    return answers


def _send(pipe: Connection, job: Callable[[], Any]) -> None:
    torch.set_num_threads(1)
    pipe.send(job())


def walked(
    data: str | Path, *, rank: int, world_size: int, streams: int, epochs: int, cache: Path | None = None
) -> Used:
    """Walk epochs as one of several ranks: packed rows, which is all that streams change."""
    loader = hexshards.loader(
        data,
        batch_size=GLOBAL_BATCH // world_size,
        drop_last=True,
        streams=streams,
        rank=rank,
        world_size=world_size,
        cache=cache,
    )
    before, read, rows = os.times(), _read_bytes(), 0
    for _ in range(epochs):
        rows += sum(len(batch.value) for batch in loader.packed())
    after = os.times()
    cpu_s = after.user + after.system - before.user - before.system
    return Used(_read_bytes() - read, cpu_s, rows)


def _read_bytes() -> int:
    """What this process has read by system calls, of files in the cache of the system too."""
    (line,) = [each for each in Path("/proc/self/io").read_text().splitlines() if each.startswith("rchar")]
    return int(line.split()[1])


def ranks_table(data: Path, *, streams: int, epochs: int) -> str:
    """Bytes and CPU of a rank for several numbers of ranks, one stream and several."""
    lines = [
        f"| ranks | read by a rank, 1 stream | {streams} streams | ratio | "
        f"CPU of a rank, 1 stream, s | {streams} streams, s | ratio |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for world_size in WORLDS:
        means = []
        for count in (1, streams):
            job = partial(walked, data, world_size=world_size, streams=count, epochs=epochs)
            used = in_processes([partial(job, rank=rank) for rank in range(world_size)])
            means.append([np.mean([getattr(each, name) for each in used]) / epochs for name in ("read_bytes", "cpu_s")])
        (read, cpu), (read_part, cpu_part) = means
        lines.append(
            f"| {world_size} | {show_bytes(int(read))} | {show_bytes(int(read_part))} | {read_part / read:.3f} | "
            f"{cpu:.4f} | {cpu_part:.4f} | {cpu_part / cpu:.2f} |"
        )
    return "\n".join(lines)


class _Counting(SimpleHTTPRequestHandler):
    """Sends files of a folder, and counts the bytes of shards that it sends."""

    sent: Any = None

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send, and count."""
        data = source.read()
        outputfile.write(data)
        if self.path.endswith(".tar"):
            with self.sent.get_lock():
                self.sent.value += len(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def fetched(data: Path, work: Path, *, nodes: int, world_size: int, streams: int) -> int:
    """Bytes of shards that a server sends to the ranks of some nodes in an epoch."""
    sent = CONTEXT.Value("q", 0)
    handler = type("Handler", (_Counting,), {"sent": sent})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(data)))
    serving = CONTEXT.Process(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        jobs = [
            partial(
                walked,
                url,
                rank=rank,
                world_size=world_size,
                streams=streams,
                epochs=1,
                cache=work / f"cache-{streams}-{rank * nodes // world_size}",
            )
            for rank in range(world_size)
        ]
        in_processes(jobs)
    finally:
        serving.terminate()
        serving.join()
        server.server_close()
    return int(sent.value)


def shards_of(plan: EpochPlan, first: NDArray[np.int64], *, ranks: range, world_size: int) -> set[int]:
    """Shards that some ranks touch in an epoch."""
    touched = set[int]()
    for rank in ranks:
        for _, number in RankShare(plan, rank, world_size).windows_from(0):
            touched |= set((np.searchsorted(first, plan.windows[number].blocks, side="right") - 1).tolist())
    return touched


def planned(
    shard_blocks: Sequence[int], block_rows: NDArray[np.int64], *, epoch: int, streams: int, nodes: int, world_size: int
) -> list[set[int]]:
    """Shards that each node touches in an epoch."""
    spec = LoaderSpec(batch_size=GLOBAL_BATCH // world_size, streams=streams, drop_last=True)
    plan = (plan_epoch if streams == 1 else plan_streams)(shard_blocks, block_rows, epoch=epoch, spec=spec)
    first, on_node = np.cumsum([0, *shard_blocks]), world_size // nodes
    return [
        shards_of(plan, first, ranks=range(node * on_node, (node + 1) * on_node), world_size=world_size)
        for node in range(nodes)
    ]


def check_table(data: Path, work: Path, *, streams: int) -> str:
    """What a server sent to two nodes of four ranks, and what the plan says."""
    index = hexshards.read_index(data)
    shards = index.splits["train"].shards
    shard_blocks = [len(shard.block_bytes) for shard in shards]
    lines = ["| streams | sent to 2 nodes of 4 ranks | by the plan | of the dataset |", "|---:|---:|---:|---:|"]
    for count in (1, streams):
        sent = fetched(data, work, nodes=2, world_size=8, streams=count)
        nodes = planned(shard_blocks, index.block_rows("train"), epoch=0, streams=count, nodes=2, world_size=8)
        needed = sum(shards[shard].size_bytes for node in nodes for shard in node)
        whole = sum(shard.size_bytes for shard in shards)
        lines.append(f"| {count} | {show_bytes(sent)} | {show_bytes(needed)} | {sent / whole:.2f} |")
    return "\n".join(lines)


def cluster_table() -> str:
    """What 64 ranks on 8 nodes fetch in the first epochs, with a cache that holds all, and with one that does not."""
    blocks = BIG_POSITIONS // CONVERT.block_positions
    per_shard = CONVERT.shard_positions // CONVERT.block_positions
    shard_blocks = [per_shard] * (blocks // per_shard)
    block_rows = np.full(sum(shard_blocks), CONVERT.block_positions)
    shard_bytes, world_size = CONVERT.shard_positions * POSITION_BYTES, NODES * ON_NODE
    lines = [
        "| streams | epochs | fetched, a cache that keeps all | times the dataset | fetched, one that does not | "
        "times the dataset | decompressed by a rank an epoch |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for streams in (1, world_size):
        kept, every = [set[int]() for _ in range(NODES)], 0
        for epoch in range(8):
            nodes = planned(shard_blocks, block_rows, epoch=epoch, streams=streams, nodes=NODES, world_size=world_size)
            every += sum(map(len, nodes))
            kept = [held | touched for held, touched in zip(kept, nodes, strict=True)]
            if epoch + 1 in (1, 2, 4, 8):
                once = sum(map(len, kept))
                lines.append(
                    f"| {streams} | {epoch + 1} | {show_bytes(int(once * shard_bytes))} | "
                    f"{once / len(shard_blocks):.2f} | {show_bytes(int(every * shard_bytes))} | "
                    f"{every / len(shard_blocks):.2f} | "
                    f"{show_bytes(int(len(shard_blocks) * shard_bytes / streams))} |"
                )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = arguments_of(__doc__, games=500)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20, help="that CPU time is measured over")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        files = files_of(given, Path(work) / "files", games=500)
        data = Path(work) / "data"
        report = hexshards.convert(files, out=data, val_fraction=0, **CUT)
        shards = hexshards.read_index(data).splits["train"].shards
        streams = given.streams
        text = "\n\n".join(
            [
                f"{machine(f'torch {torch.__version__}')} The dataset of the first two tables: {report.positions:,} "
                f"positions in {len(shards)} shards of up to {CUT['shard_positions']:,}, blocks of "
                f"{CUT['block_positions']:,}; a global batch of {GLOBAL_BATCH:,}.",
                "## A rank",
                f"Means over all ranks and {given.epochs} epochs of packed rows, one process a rank, all at once. CPU "
                "is user and system time. A stream shares with its neighbour the block that its end lies in, which both"
                " read; the smaller the blocks, the less that is, and the more is to be put together.",
                ranks_table(data, streams=streams, epochs=given.epochs),
                "## Nodes and a server, for real",
                "An HTTP server on this machine counts the bytes of shards that it sends; each node has a cache of its "
                "own, empty at first, which its ranks share.",
                check_table(data, Path(work), streams=streams),
                f"## {NODES * ON_NODE} ranks on {NODES} nodes, by the plan",
                f"{BIG_POSITIONS:,} positions of {POSITION_BYTES} bytes in shards of {CONVERT.shard_positions:,}, "
                f"{show_bytes(int(BIG_POSITIONS * POSITION_BYTES))}; nothing is read here: the same functions say "
                "which shards a rank touches. Fetched is over all nodes and up to that epoch; each epoch deals the "
                "shards out anew, so a cache that keeps all fills up.",
                cluster_table(),
            ]
        )
    print(text)
    if given.write:
        write_results("Many nodes", text + "\n")


if __name__ == "__main__":
    main()
