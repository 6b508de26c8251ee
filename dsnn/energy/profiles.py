"""What an operation costs: a named table of picojoules with the source of each number, read from YAML.

The tables that come with the package are in `hardware/`. A user's own is a YAML file of the same form, named by its
path; with `like: <name or path>` it states only what differs::

    like: 45nm-int8
    about: our test chip
    ac_pj: {value: 0.021, source: measured on 2026-03-02, die 4, 0.6 V}
"""

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import yaml

from dsnn.energy.neurons import NEURONS, neuron_cost
from dsnn.energy.records import Source
from dsnn.store import places
from dsnn.suggest import did_you_mean

__all__ = ["ACCOUNTINGS", "Accounting", "Profile", "profile", "profile_names"]

Accounting = Literal["arithmetic", "updates", "memory"]

ACCOUNTINGS: tuple[Accounting, ...] = ("arithmetic", "updates", "memory")
HARDWARE = Path(__file__).parent / "hardware"
ALIASES = {"45nm": "45nm-fp32"}
SPELLING = "value and source, as in `ac_pj: {value: 0.9, source: Horowitz 2014}`"


@dataclass(frozen=True)
class Profile:
    """The price of each kind of operation on one piece of hardware, at one number width.

    Three accountings, each containing the one before: "arithmetic" (synaptic operations only, the field's usual
    proxy), "updates" (and every neuron update and spike), "memory" (and every weight, state and activation moved).

    Args:
        name: The profile's name.
        about: What hardware it describes.
        bits: Width of weights, states and analog activations.
        mac_pj: One multiply-accumulate, in pJ.
        ac_pj: One accumulate, in pJ.
        multiply_pj: The multiplication in `mac_pj`, which grows with the square of the width, in pJ.
        compare_pj: One comparison, in pJ.
        spike_pj: What each spike costs its sender (reset, spike message), in pJ.
        update_pj: One neuron update by kind, in pJ, where the hardware publishes it ("any" for all kinds); kinds that
            are not listed are priced by the operations in `NEURONS`.
        weight_pj_per_bit: Reading a weight, in pJ per bit.
        state_pj_per_bit: Reading or writing a state variable, in pJ per bit.
        activation_pj_per_bit: Reading an activation (a spike is one bit), in pJ per bit.
        address_pj: Making the address of a row of weights from that of an event, in pJ; 0 where nobody prices it.
        address_pj_per_bit: Writing an event's address to a queue and reading it, in pJ per bit.
        memory_included: Whether the published prices already contain memory, so that nothing is added for it.
        integer: Whether its arithmetic is that of integers, which widths of weights are priced for.
        sources: Where each number comes from, by field.
    """

    name: str
    about: str
    bits: int
    mac_pj: float
    ac_pj: float
    multiply_pj: float = 0.0
    compare_pj: float = 0.0
    spike_pj: float = 0.0
    update_pj: dict[str, float] = field(default_factory=dict)
    weight_pj_per_bit: float | None = None
    state_pj_per_bit: float | None = None
    activation_pj_per_bit: float | None = None
    address_pj: float = 0.0
    address_pj_per_bit: float = 0.0
    memory_included: bool = False
    integer: bool = False
    sources: dict[str, str] = field(default_factory=dict)

    def event_nj(self, source: Source, accounting: Accounting) -> float:
        """The price of one synaptic event (one non-zero input at one connected weight), in nJ.

        Args:
            source: "spikes" (an accumulate) or "analog" (a multiply-accumulate).
            accounting: "memory" adds the reading of the weight.
        """
        self.check(accounting)
        operation = {"spikes": self.ac_pj, "analog": self.mac_pj}[source]
        weight = self.bits * (self.weight_pj_per_bit or 0.0) if accounting == "memory" else 0.0
        return 1e-3 * (operation + weight)

    def event_at_nj(self, source: Source, accounting: Accounting, bits: int, fan_in: int, input_bits: int = 1) -> float:
        """The price of one synaptic event at a weight of so many bits, in nJ; without bits nothing is done.

        The accumulator has a width of its own, in which the sum of all inputs fits, and adders are linear in it; a
        multiplier grows with the product of its operands' widths, which of equal ones is the square; a weight is read
        bit by bit. It holds for spiking and for dense networks alike.

        Args:
            source: "spikes" (an accumulate) or "analog" (a multiply-accumulate).
            accounting: "memory" adds the reading of the weight.
            bits: Width of the weight, 0 for none.
            fan_in: Inputs of one neuron, which are summed.
            input_bits: Width of an input that carries a value.
        """
        self.check(accounting)
        if not bits:
            return 0.0
        analog = source == "analog"
        width = bits + math.ceil(math.log2(max(fan_in, 1))) + input_bits * analog
        add = (self.mac_pj - self.multiply_pj if analog else self.ac_pj) * width / self.bits
        multiply = self.multiply_pj * bits * input_bits / self.bits**2 if analog else 0.0
        weight = bits * (self.weight_pj_per_bit or 0.0) if accounting == "memory" else 0.0
        return 1e-3 * (add + multiply + weight)

    def update_nj(self, kind: str, accounting: Accounting) -> float:
        """The price of one update of one neuron, in nJ: zero in "arithmetic"; "memory" adds its state's traffic.

        Args:
            kind: A name in `NEURONS`.
            accounting: One of the three.
        """
        self.check(accounting)
        if accounting == "arithmetic":
            return 0.0
        moved = 2 * neuron_cost(kind).states * self.bits if accounting == "memory" else 0
        return 1e-3 * (self.neuron_pj(kind) + moved * (self.state_pj_per_bit or 0.0))

    def neuron_pj(self, kind: str) -> float:
        """The arithmetic of one neuron update, in pJ."""
        cost = neuron_cost(kind)
        counted = cost.macs * self.mac_pj + cost.acs * self.ac_pj + cost.compares * self.compare_pj
        return self.update_pj.get(kind, self.update_pj.get("any", counted))

    @property
    def prices_memory(self) -> bool:
        """Whether "memory" can be asked of it."""
        prices = (self.weight_pj_per_bit, self.state_pj_per_bit, self.activation_pj_per_bit)
        return self.memory_included or None not in prices

    def addressed(self) -> "Profile":
        """The same hardware with a price for the addresses of events, where it states none.

        A row's address is one addition of 32 bits, `ac_pj` in proportion to the width; an event's own is written to
        memory like an activation's and read from it. Published prices of whole events hold theirs.
        """
        if self.memory_included or self.address_pj or self.address_pj_per_bit:
            return self
        moved = 2 * (self.activation_pj_per_bit or 0.0)
        derived = {"address_pj": "ac_pj at 32 bits", "address_pj_per_bit": "twice activation_pj_per_bit"}
        sources = self.sources | derived
        return replace(self, address_pj=self.ac_pj * 32 / self.bits, address_pj_per_bit=moved, sources=sources)

    def check(self, accounting: Accounting) -> None:
        """Makes sure that the profile can be used in this accounting.

        Raises:
            ValueError: No such accounting, or "memory" on a profile that says nothing about memory.
        """
        if accounting not in ACCOUNTINGS:
            raise ValueError(f"accounting must be one of {', '.join(ACCOUNTINGS)}, got {accounting!r}.")
        if accounting == "memory" and not self.prices_memory:
            raise ValueError(
                f"Profile {self.name} must price memory for the memory accounting, got none; give weight_pj_per_bit, "
                "state_pj_per_bit and activation_pj_per_bit, or memory_included: true."
            )

    def at_bits(self, bits: int) -> "Profile":
        """The same hardware at another number width: multiplications scale with its square, all else linearly.

        Args:
            bits: The new width, at least 1.

        Raises:
            ValueError: A width below 1.
        """
        if bits < 1:
            raise ValueError(f"bits must be at least 1, got {bits}; a T-step network needs ceil(log2(T + 1)).")
        scale = bits / self.bits
        multiply = self.multiply_pj * scale**2
        return replace(
            self,
            name=f"{self.name}@{bits}bit",
            bits=bits,
            mac_pj=multiply + (self.mac_pj - self.multiply_pj) * scale,
            multiply_pj=multiply,
            ac_pj=self.ac_pj * scale,
            compare_pj=self.compare_pj * scale,
            spike_pj=self.spike_pj * scale,
            update_pj={kind: pj * scale for kind, pj in self.update_pj.items()},
        )


def profile(name: str) -> Profile:
    """Reads a profile by its name (`profile_names`) or by the path of a YAML file.

    Raises:
        ValueError: No such profile, or an entry that is unknown, missing, negative or not finite.
    """
    path = _path(name)
    entries = _entries(path)
    numbers = {f.name for f in fields(Profile) if f.name.endswith(("_pj", "_per_bit")) and f.name != "update_pj"}
    known = numbers | {"about", "bits", "memory_included", "integer", "update_pj", "like"}
    for key in entries:
        if key not in known:
            raise ValueError(f"{path.name}: unknown entry {key!r}; a profile has {', '.join(sorted(known))}.")
    for key in ("about", "bits", "mac_pj", "ac_pj"):
        if key not in entries:
            raise ValueError(f"{path.name}: the entry {key} is missing; give it, or inherit it with `like: 45nm`.")
    bits = entries["bits"]
    if not isinstance(bits, int) or isinstance(bits, bool) or bits < 1:
        raise ValueError(
            f"{path.name}: bits must be a whole number of at least 1, got {bits!r}; 32, 16 and 8 are usual."
        )
    updates = entries.get("update_pj") or {}
    for kind in updates:
        if kind != "any" and kind not in NEURONS:
            raise ValueError(
                f"{path.name}: update_pj prices a kind {kind!r} that is none of any, {', '.join(NEURONS)}."
            )
    priced = {key: _number(path, key, entries[key]) for key in numbers & set(entries)}
    by_kind = {kind: _number(path, f"update_pj.{kind}", entry) for kind, entry in updates.items()}
    if priced.get("multiply_pj", 0.0) > priced["mac_pj"]:
        raise ValueError(
            f"{path.name}: multiply_pj must not exceed mac_pj, got {priced['multiply_pj']} and {priced['mac_pj']}; "
            "a MAC is a multiplication and an addition."
        )
    sources = {key: str(entries[key]["source"]) for key in priced}
    sources |= {f"update_pj.{kind}": str(entry["source"]) for kind, entry in updates.items()}
    return Profile(
        name=ALIASES.get(name, path.stem),
        about=str(entries["about"]),
        bits=bits,
        update_pj=by_kind,
        memory_included=bool(entries.get("memory_included", False)),
        integer=bool(entries.get("integer", False)),
        sources=sources,
        **priced,
    )


def profile_names() -> list[str]:
    """The names of the profiles that come with the package, and of those in the user's configuration folders."""
    return sorted([*ALIASES, *(path.stem for path in HARDWARE.glob("*.yaml")), *places.files("hardware")])


def profile_file(name: str) -> Path | None:
    """Returns the file of a profile of the user's own, None where dsnn brings it or there is none."""
    try:
        path = _path(name)
    except ValueError:
        return None
    return None if path.is_relative_to(HARDWARE) else path


def _path(name: str) -> Path:
    given = Path(name)
    if given.suffix in (".yaml", ".yml"):
        if not given.is_file():
            raise ValueError(f"There is no profile file {name}; give the path of a YAML file.")
        return given
    path = HARDWARE / f"{ALIASES.get(name, name)}.yaml"
    if path.is_file():
        return path
    if (own := places.files("hardware").get(name)) is not None:
        return own
    raise ValueError(
        f"Profile must be one of {', '.join(profile_names())} or a YAML file's path, got {name!r}; "
        f"{did_you_mean(name, profile_names(), 'a file of your own goes into hardware/ of --config-dir DIR.', most=1)}"
    )


def _entries(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no valid YAML ({error}); write one entry per line.") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path.name} must hold a table of entries, got {type(entries).__name__}; see profiles.py.")
    if "like" not in entries:
        return entries
    if path in seen:
        raise ValueError(f"{path.name}: `like` goes in a circle; let one of the files state its own numbers.")
    inherited = _entries(_path(str(entries["like"])), (*seen, path))
    updates = (inherited.get("update_pj") or {}) | (entries.get("update_pj") or {})
    return inherited | entries | ({"update_pj": updates} if updates else {})


def _number(path: Path, key: str, entry: object) -> float:
    if not isinstance(entry, dict) or set(entry) != {"value", "source"}:
        raise ValueError(f"{path.name}: {key} must have {SPELLING}, got {entry!r}.")
    value, source = entry["value"], entry["source"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{path.name}: {key} must be a finite number of pJ, not negative, got {value!r}; correct it.")
    if not source:
        raise ValueError(f"{path.name}: {key} must name its source, got {source!r}; cite a paper or a measurement.")
    return float(value)
