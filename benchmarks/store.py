"""Reading and writing frozen features: our store beside what else one could use, in one process, round by round.

    python benchmarks/store.py [--items 100] [--kib 2048] [--rounds 7] [--folder DIR]

Every reader gives the bytes of the same items (2 MiB, float32, on a warm page cache, one thread) as a tensor; all are
checked to be equal before a clock runs. A round reads all items once with each, in turn; printed are medians over the
rounds, and each reader's share of a plain copy of the same bytes in memory (median of the ratios of the same round).
Writing goes into the page cache: nothing is flushed but what the library flushes by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from safetensors.torch import load_file, save_file

from boresight.features.cache import FeatureCache
from boresight.run.engine import keep_freed_memory

Writer = Callable[[int, torch.Tensor], None]
Reader = Callable[[int], torch.Tensor]


def never(keys: list[str]) -> list[Any]:
    raise AssertionError("an item is missing")


def key(i: int) -> str:
    return f"{0:032x}-{i * 2654435761 % 2**64:032x}"


def ours(folder: Path) -> tuple[Writer, Reader]:
    store = FeatureCache(folder / "ours")

    def write(i: int, x: torch.Tensor) -> None:
        store.get_many([key(i)], lambda keys: [{"x": x}])

    return write, lambda i: store.get_many([key(i)], never)[0]["x"]


def plain_file(folder: Path, *, verified: bool) -> tuple[Writer, Reader]:
    def write(i: int, x: torch.Tensor) -> None:
        data = x.numpy().view(np.uint8).data
        with open(folder / f"plain-{i}", "wb") as out:
            out.write(xxhash.xxh3_128_digest(data))
            out.write(data)

    def read(i: int) -> torch.Tensor:
        descriptor = os.open(folder / f"plain-{i}", os.O_RDONLY)
        buffer = torch.empty(os.fstat(descriptor).st_size, dtype=torch.uint8)
        os.readv(descriptor, [buffer.numpy().data])
        os.close(descriptor)
        if verified and xxhash.xxh3_128_digest(buffer[16:].numpy().data) != bytes(buffer[:16].numpy()):
            raise ValueError("damaged")
        return buffer[16:].view(torch.float32)

    return write, read


def torch_file(folder: Path) -> tuple[Writer, Reader]:
    return (
        lambda i, x: torch.save({"x": x}, folder / f"{i}.pt"),
        lambda i: torch.load(folder / f"{i}.pt", weights_only=True)["x"],
    )


def safetensors_file(folder: Path) -> tuple[Writer, Reader]:
    return (
        lambda i, x: save_file({"x": x}, folder / f"{i}.safetensors"),
        lambda i: load_file(folder / f"{i}.safetensors")["x"],
    )


def numpy_file(folder: Path) -> tuple[Writer, Reader]:
    return (
        lambda i, x: np.save(folder / f"{i}.npy", x.numpy()),
        lambda i: torch.from_numpy(np.load(folder / f"{i}.npy")),
    )


def sqlite_blob(folder: Path) -> tuple[Writer, Reader]:
    base = sqlite3.connect(folder / "blobs.sqlite")
    base.execute("create table items (i integer primary key, x blob)")

    def write(i: int, x: torch.Tensor) -> None:
        with base:
            base.execute("insert into items values (?, ?)", (i, x.numpy().data))

    def read(i: int) -> torch.Tensor:
        with base.blobopen("items", "x", i, readonly=True) as blob:
            return torch.frombuffer(bytearray(blob.read()), dtype=torch.float32)

    return write, read


def lmdb_blob(folder: Path, *, verified: bool) -> tuple[Writer, Reader]:
    import lmdb

    place = folder / f"lmdb-{verified}"
    base = lmdb.open(str(place), map_size=2**34, sync=False)

    def write(i: int, x: torch.Tensor) -> None:
        data = x.numpy().view(np.uint8).data
        with base.begin(write=True) as change:
            change.put(b"%d" % i, xxhash.xxh3_128_digest(data) + bytes(data))

    def read(i: int) -> torch.Tensor:
        with base.begin(buffers=True) as view:
            held = view.get(b"%d" % i)
            found = torch.frombuffer(held, dtype=torch.uint8)[16:].clone()
            digest = bytes(held[:16])
        if verified and xxhash.xxh3_128_digest(found.numpy().data) != digest:
            raise ValueError("damaged")
        return found.view(torch.float32)

    return write, read


def hdf5_file(folder: Path) -> tuple[Writer, Reader]:
    import h5py

    base = h5py.File(folder / "items.h5", "w")

    def write(i: int, x: torch.Tensor) -> None:
        base.create_dataset(str(i), data=x.numpy())

    return write, lambda i: torch.from_numpy(base[str(i)][()])


def diskcache_item(folder: Path) -> tuple[Writer, Reader]:
    import diskcache

    base = diskcache.Cache(str(folder / "diskcache"), size_limit=2**34)
    return (
        lambda i, x: base.set(i, x.numpy().tobytes()),
        lambda i: torch.frombuffer(bytearray(base.get(i)), dtype=torch.float32),
    )


def zarr_array(folder: Path) -> tuple[Writer, Reader]:
    import zarr

    base = zarr.open_group(str(folder / "zarr"), mode="w")

    def write(i: int, x: torch.Tensor) -> None:
        base.create_array(str(i), data=x.numpy(), chunks=(len(x),), compressors=None)

    return write, lambda i: torch.from_numpy(base[str(i)][:])


CONTENDERS: dict[str, Callable[[Path], tuple[Writer, Reader]]] = {
    "boresight store (verified)": ours,
    "plain file": lambda f: plain_file(f, verified=False),
    "plain file + xxh3 (verified)": lambda f: plain_file(f, verified=True),
    "LMDB": lambda f: lmdb_blob(f, verified=False),
    "LMDB + xxh3 (verified)": lambda f: lmdb_blob(f, verified=True),
    "SQLite blob": sqlite_blob,
    "safetensors": safetensors_file,
    "np.save / np.load": numpy_file,
    "HDF5": hdf5_file,
    "diskcache": diskcache_item,
    "torch.save / torch.load": torch_file,
    "zarr": zarr_array,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--kib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a training run does; it helps every reader alike
    items = [torch.randn(args.kib * 256) for _ in range(args.items)]
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        made = prepared(Path(place), items)
        result = measured({name: reader for name, (_, reader, _) in made.items()}, items, args.rounds)
    writes = {name: seconds for name, (_, _, seconds) in made.items()}
    print(f"{args.items} items of {args.kib} KiB, {args.rounds} rounds, one thread\n")
    print(f"{'':<30} {'read us':>9} {'of memcpy':>10} {'write us':>9}")
    for name, row in sorted(result.items(), key=lambda kv: -kv[1]["share"]):
        wrote = f"{1e6 * writes[name]:9.0f}" if name in writes else " " * 9
        print(f"{name:<30} {1e6 * row['seconds']:9.0f} {row['share']:10.2f} {wrote}")
    load = result["torch.save / torch.load"]["seconds"] / result["boresight store (verified)"]["seconds"]
    print(f"\nours reads {load:.2f} x as fast as torch.load")
    told = {
        n: {"share_of_memcpy": round(r["share"], 3), "read_us": round(1e6 * r["seconds"], 1)} for n, r in result.items()
    }
    print(json.dumps({"readers": told, "times_torch_load": round(load, 3)}))


def prepared(folder: Path, items: list[torch.Tensor]) -> dict[str, tuple[Writer, Reader, float]]:
    """Every contender that is installed, with its items written and checked, and the seconds of one write."""
    made = {}
    for name, make in CONTENDERS.items():
        try:
            write, read = make(folder)
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        seconds = []
        for i, x in enumerate(items):
            began = time.perf_counter()
            write(i, x)
            seconds.append(time.perf_counter() - began)
        if not all(torch.equal(read(i), x) for i, x in enumerate(items)):
            raise AssertionError(f"{name} gives other bytes")
        made[name] = (write, read, statistics.median(seconds))
    return made


def measured(readers: dict[str, Reader], items: list[torch.Tensor], rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds a read, and the share of a copy in memory."""
    every: dict[str, Reader] = {"memcpy": lambda i: items[i].clone(), **readers}
    seconds: dict[str, list[float]] = {name: [] for name in every}
    for round_ in range(rounds + 1):
        for name, read in every.items():
            began = time.perf_counter()
            for i in range(len(items)):
                read(i)
            if round_:  # the first warms up
                seconds[name].append((time.perf_counter() - began) / len(items))
    return {
        name: {
            "seconds": statistics.median(took),
            "share": statistics.median(m / t for m, t in zip(seconds["memcpy"], took, strict=True)),
        }
        for name, took in seconds.items()
    }


if __name__ == "__main__":
    main()
