"""Mistakes by which a breaker opens, stays or closes when it must not, or by which it keeps nothing back."""

from __future__ import annotations

from tests.simulation.mutants.mutant import Mutant

BREAKER = (
    Mutant(
        "one hot key opens a breaker",
        "consumer/domain/breaker.py",
        "2 * failed > self._held and len(set().union(*(tally.keys for tally in tallies))) >= KEYS",
        "2 * failed > self._held and failed >= KEYS",
        ("breaker",),
        family="breaker",
    ),
    Mutant(
        "a breaker that is open never probes",
        "consumer/domain/breaker.py",
        'return self.state != "closed" and not self._probe_is_out and now >= self._probe_at',
        "return False",
        ("liveness",),
        family="breaker",
    ),
    Mutant(
        "probes that fail close a breaker",
        "consumer/domain/breaker.py",
        "        if good or (good is False and is_poison):\n            self.good_probes += 1\n",
        "        if good is not None:\n            self.good_probes += 1\n",
        ("breaker",),
        family="breaker",
    ),
    Mutant(
        "letters go on while a breaker is open",
        "consumer/worker/shard/key_probes.py",
        "        self._held.append(piece)\n        return True\n",
        "        return False\n",
        ("breaker",),
        family="breaker",
    ),
    Mutant(
        "calls go on while a breaker is open",
        "consumer/worker/shard/key_order.py",
        "        if not self._breaker.is_closed:\n            return self._probes.next()\n",
        "",
        ("breaker",),
        family="breaker",
    ),
    Mutant(
        "what was kept back is forgotten when a breaker closes",
        "consumer/worker/shard/key_probes.py",
        "self._pausing.add_due(self._held)",
        "pass",
        ("liveness", "G1 complete"),
        family="breaker",
    ),
    Mutant(
        "a probe that fails is poison although nothing works anywhere",
        "consumer/worker/shard/breaker.py",
        "is_poison = invoked and self._successes.elsewhere(self._shard_id, self._clock.monotonic())",
        "is_poison = invoked",
        ("breaker",),
        family="breaker",
    ),
)
