"""Bytes of collectives, read from HLO: written by hand, and of programs compiled here."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from benchmarks.scaling.collectives import collectives
from hmgr_jax.distributed.parallel import DATA, make_mesh

HEAD = "HloModule jit_step, is_scheduled=true, replica_count=1, num_partitions=8\n"
GROUP = "replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}"
SUM = "%sum (a: f32[], b: f32[]) -> f32[] {\n  ROOT %add.1 = f32[] add(%a, %b)\n}\n"


def _entry(*lines, before=""):
    body = "\n".join(f"  {line}" for line in lines)
    return f"{HEAD}\n{before}\nENTRY %main.1 (p: f32[2]) -> f32[2] {{\n{body}\n}}\n"


def _moved(*lines, **more):
    found, unknown = collectives(_entry(*lines, **more))
    assert unknown == 0
    return {k: (v["count"], v["result_bytes"], v["sent_bytes"]) for k, v in found.items()}


@pytest.mark.parametrize(
    ("line", "kind", "result", "sent"),
    [
        (f"%g = f32[16,4]{{1,0}} all-gather(%p), {GROUP}", "all-gather", 256, 224),
        (f"%g = bf16[16,4]{{1,0:T(8,128)(2,1)}} all-gather(%p), {GROUP}", "all-gather", 128, 112),
        (f"%g = pred[16]{{0}} all-gather(pred[2]{{0}} %p), {GROUP}", "all-gather", 16, 14),
        (f"ROOT g = s32[16]{{0}} all-gather(p), {GROUP}", "all-gather", 64, 56),
        ("%g = f32[8]{0} all-gather(%p), replica_groups=[2,4]<=[8]", "all-gather", 32, 24),
        ("%g = f32[8]{0} all-gather(%p), replica_groups={}", "all-gather", 32, 28),
        (f"%r = f32[2,4]{{1,0}} reduce-scatter(%p), {GROUP}", "reduce-scatter", 32, 224),
        (f"%r = (f32[8]{{0}}, /*index=1*/f16[2,4]{{1,0}}) all-reduce(%a, %b), {GROUP}, "
         "to_apply=%sum", "all-reduce", 48, 84),
        ("%r = f32[8]{0} all-reduce(%p), replica_groups={{0},{1}}", "all-reduce", 32, 0),
        ("%r = f32[] all-reduce(%p), replica_groups={{0,1},{2,3}}", "all-reduce", 4, 4),
        (f"%r = f32[16]{{0}} all-to-all(%p), {GROUP}", "all-to-all", 64, 56),
        ("%r = c64[4]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}",
         "collective-permute", 32, 32),
        (f"%r = s4[16]{{0}} all-gather(%p), {GROUP}", "all-gather", 8, 7),
    ],
)  # fmt: skip
def test_kinds_and_types(line, kind, result, sent):
    assert _moved(line, before=SUM) == {kind: (1, result, sent)}


def test_asynchronous_pairs_count_once():
    four = "replica_groups={{0,1,2,3},{4,5,6,7}}"
    moved = _moved(
        f"%s = (f32[2]{{0}}, f32[8]{{0}}) all-gather-start(%p), {four}",
        "%d = f32[8]{0} all-gather-done((f32[2]{0}, f32[8]{0}) %s)",
        f"%s.1 = f32[8]{{0}} all-reduce-start(%p), {four}, to_apply=%sum",
        "%d.1 = f32[8]{0} all-reduce-done(%s.1)",
        "%s.2 = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%p), "
        "source_target_pairs={{0,1}}",
        "%d.2 = f32[4]{0} collective-permute-done(%s.2)",
        "%s.3 = ((f32[8]{0}), f32[2]{0}, s32[]) async-start(%p), calls=%wrapped",
        "%d.3 = f32[2]{0} async-done(%s.3), calls=%wrapped",
        before=f"{SUM}\n%wrapped (q: f32[8]) -> f32[2] {{\n"
        f"  ROOT %r = f32[2]{{0}} reduce-scatter(%q), {four}, to_apply=%sum\n}}\n",
    )
    assert moved == {
        "all-gather": (1, 32, 24),
        "all-reduce": (1, 32, 48),
        "collective-permute": (1, 16, 16),
        "reduce-scatter": (1, 8, 24),
    }


LOOPS = f"""{SUM}
%inner (x: f32[2]) -> f32[16] {{
  ROOT %g = f32[16]{{0}} all-gather(%x), {GROUP}
}}
%body (t: (f32[2])) -> (f32[2]) {{
  %w = (f32[2]) while(%t), condition=%cond, body=%inner, backend_config={{"known_trip_count":{{"n":"3"}}}}
  %c = f32[16]{{0}} call(%w), to_apply=%inner
}}
%small (x: f32[2]) -> f32[8] {{
  %g = f32[8]{{0}} all-gather(%x), {GROUP}
}}
%none (x: f32[2]) -> f32[2] {{
  %n = f32[2]{{0}} negate(%x)
}}
"""  # noqa: E501


def test_loops_count_as_often_as_they_turn():
    turns = 'backend_config={"a":{"b":"1"},"known_trip_count":{"n":"5"}}'
    line = f"%w = (f32[2]) while(%p), condition=%cond, body=%body, {turns}"
    assert _moved(line, before=LOOPS) == {"all-gather": (20, 20 * 64, 20 * 56)}


def test_a_loop_of_unknown_length_is_reported():
    lines = [f"%w.{b} = (f32[2]) while(%p), condition=%c, body=%{b}" for b in ("body", "none")]
    found, unknown = collectives(_entry(*lines, before=LOOPS))
    assert (found["all-gather"]["count"], unknown) == (4, 1)


@pytest.mark.parametrize(
    "branches",
    [
        "branch_computations={%none, %inner, %small}",
        "true_computation=%small, false_computation=%inner",
    ],
)
def test_a_conditional_is_its_dearest_branch(branches):
    line = f"%c = f32[] conditional(%i, %p, %p), {branches}"
    assert _moved(line, before=LOOPS) == {"all-gather": (1, 64, 56)}


def test_a_compiled_program():
    """A gather in a scan of 5, its gradient, and a mean, on 8 devices."""

    def loss(x):
        def turn(total, scale):
            rows = jax.lax.all_gather(jnp.sin(x * scale), DATA, tiled=True)
            return total + jnp.sum(rows @ rows.T), None

        return jax.lax.scan(turn, 0.0, jnp.arange(5.0, dtype=jnp.float32))[0]

    def step(x):
        value, gradient = jax.value_and_grad(loss)(x)
        return jax.lax.pmean(value, DATA), gradient

    mesh = make_mesh(8)
    mapped = jax.jit(
        jax.shard_map(step, mesh=mesh, in_specs=P(DATA), out_specs=(P(), P(DATA)), check_vma=False)
    )
    compiled = mapped.lower(jax.ShapeDtypeStruct((16, 4), jnp.float32)).compile()
    found, unknown = collectives(compiled.as_text())
    assert unknown == 0
    whole = 16 * 4 * 4
    sent = 5 * whole * 7 // 8
    assert found["all-gather"] == {"count": 5, "result_bytes": 5 * whole, "sent_bytes": sent}
    assert found["reduce-scatter"] == {
        "count": 5,
        "result_bytes": 5 * whole // 8,
        "sent_bytes": sent,
    }
    assert found["all-reduce"] == {"count": 1, "result_bytes": 4, "sent_bytes": 7}


def test_a_program_of_one_device_sends_nothing():
    compiled = jax.jit(lambda x: x @ x).lower(jnp.ones((2, 2))).compile()
    assert collectives(compiled.as_text()) == ({}, 0)
