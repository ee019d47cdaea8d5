"""Kernels, bytes and operations of small programs whose figures are known."""

import jax
import jax.numpy as jnp
import pytest

from earvae_jax.targets.hlo import ArrayShape, Program, arrays
from earvae_jax.targets.products import operations
from earvae_jax.targets.reading import Memory, read, read_text
from earvae_jax.targets.traffic import by_kind, kernels, loops_of_unknown_length, total_bytes, total_kernels

NO_MEMORY = Memory(0, 0, 0, 0, 0)


def program(entry: str, others: str = "") -> Program:
    """A program whose entry has these lines."""
    lines = "\n".join(f"  {line.strip()}" for line in entry.strip().splitlines())
    return Program.parse(f"HloModule test\n\n{others}\n\nENTRY %main (a: f32[8]) -> f32[8] {{\n{lines}\n}}\n")


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("bf16[3,5]{1,0}", 30),
        ("pred[7]{0}", 7),
        ("s4[7]", 4),
        ("c64[2,2]{1,0}", 32),
        ("f8e4m3fn[9]", 9),
        ("token[]", 0),
        ("f32[<=10,2]{1,0}", 80),
        # A tile of 8 × 128 is filled up; the sizes that change fastest come first in the layout.
        ("f32[3,100]{1,0:T(8,128)}", 4 * 8 * 128),
        ("bf16[100,3]{0,1:T(8,128)(2,1)}", 2 * 8 * 128),
        ("bf16[2,9,130]{2,1,0:T(8,128)(2,1)}", 2 * 2 * 16 * 256),
        ("f32[300]{0:T(128)}", 4 * 384),
    ],
)
def test_bytes_of_an_array(shape, size):
    (array,) = arrays(shape)
    assert array.bytes == size


def test_where_an_array_lies():
    (on_chip,), (in_main) = arrays("f32[8,128]{1,0:T(8,128)S(1)}"), next(arrays("f32[8]{0:T(128)S(0)}"))
    assert not on_chip.in_main_memory
    assert in_main.in_main_memory
    assert ArrayShape("f32", (8,)).in_main_memory


def test_a_kernel_reads_its_operands_and_writes_its_result():
    found = kernels(
        program(
            """
            %a = f32[8]{0} parameter(0)
            %b = f32[8]{0} bitcast(%a)
            %c = (f32[8]{0}, u8[16]{0}) custom-call(%a, /*index=1*/%b), custom_call_target="__lib$thing"
            %d = f32[8]{0} get-tuple-element(%c), index=0
            ROOT %e.1.clone = f32[8]{0} fusion(%d), kind=kLoop, calls=%f, metadata={op_name="x=(y)"}
            """,
            "%f (p: f32[8]) -> f32[8] {\n  %p = f32[8]{0} parameter(0)\n"
            "  ROOT %n = f32[8]{0} negate(%p)\n}\n",
        )
    )
    assert [(kernel.kind, kernel.bytes) for kernel in found] == [
        ("custom-call: __lib$thing", 32 + 32 + 32 + 16),
        ("fusion: e", 32 + 32),
    ]
    assert total_bytes(found) == 176
    assert by_kind(found)[0].bytes == 112


SLICING = """
%f (p: f32[1000], q: f32[1000], i: s32[]) -> (f32[10], f32[1000]) {
  %p = f32[1000]{0} parameter(0)
  %q = f32[1000]{0} parameter(1)
  %i = s32[] parameter(2)
  %part = f32[10]{0} dynamic-slice(%p, %i), dynamic_slice_sizes={10}
  %updated = f32[1000]{0} dynamic-update-slice(%q, %part, %i)
  ROOT %both = (f32[10]{0}, f32[1000]{0}) tuple(%part, %updated)
}
"""


def test_a_fusion_counts_the_parts_that_it_touches():
    found = kernels(
        program(
            """
            %a = f32[1000]{0} parameter(0)
            %b = f32[1000]{0} parameter(1)
            %i = s32[] parameter(2)
            ROOT %g = (f32[10]{0}, f32[1000]{0}) fusion(%a, %b, %i), kind=kLoop, calls=%f
            """,
            SLICING,
        )
    )
    # It reads a slice of a and the index, and writes the slice twice; b stays where it is.
    assert total_bytes(found) == 40 + 4 + 40 + 40


def test_slices_outside_fusions():
    found = kernels(
        program(
            """
            %a = f32[1000]{0} parameter(0)
            %i = s32[] parameter(1)
            %part = f32[10]{0} dynamic-slice(%a, %i), dynamic_slice_sizes={10}
            ROOT %u = f32[1000]{0} dynamic-update-slice(%a, %part, %i)
            """
        )
    )
    assert [kernel.bytes for kernel in found] == [2 * 40 + 4, 2 * 40 + 4]


NESTED = """
%inner (x: f32[1000]) -> f32[10] {
  %x = f32[1000]{0} parameter(0)
  ROOT %s = f32[10]{0} slice(%x), slice={[0:10]}
}
%same (y: f32[1000]) -> f32[1000] {
  %y = f32[1000]{0} parameter(0)
  ROOT %r = f32[1000]{0} bitcast(%y)
}
%f (p: f32[1000], q: f32[1000]) -> f32[10] {
  %p = f32[1000]{0} parameter(0)
  %q = f32[1000]{0} parameter(1)
  %z = f32[10]{0} fusion(%p), kind=kLoop, calls=%inner
  %w = f32[1000]{0} fusion(%q), kind=kLoop, calls=%same
  ROOT %m = f32[10]{0} custom-call(%z, %w), custom_call_target="x"
}
"""


def test_fusions_inside_fusions():
    found = kernels(
        program(
            """
            %a = f32[1000]{0} parameter(0)
            %b = f32[1000]{0} parameter(1)
            ROOT %g = f32[10]{0} fusion(%a, %b), kind=kOutput, calls=%f
            """,
            NESTED,
        )
    )
    assert total_bytes(found) == 40 + 4000 + 40


def test_a_tpu_prefetches_from_main_memory():
    found = kernels(
        program(
            """
            %a = f32[8,128]{1,0:T(8,128)} parameter(0)
            %s = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
            %d = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%s)
            %t = ((f32[8,128]{1,0:T(8,128)}), f32[4,128]{1,0:T(4,128)S(1)}, s32[]{:S(2)}) slice-start(%a)
            %e = f32[4,128]{1,0:T(4,128)S(1)} slice-done(%t)
            %n = s32[1]{0:T(128)S(6)} negate(%i)
            ROOT %f = f32[8,128]{1,0:T(8,128)} add(%d, %e)
            """
        )
    )
    assert [(kernel.kind, kernel.bytes) for kernel in found] == [
        ("copy-start", 4096),
        ("slice-start", 2048),
        ("add", 4096),
    ]


BRANCHES = """
%small (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%p)
}
%large (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  %m = f32[8]{0} negate(%q)
  ROOT %o = f32[8]{0} negate(%m)
}
"""


def test_loops_conditions_and_calls():
    known = """backend_config={"known_trip_count":{"n":"5"},"dynamic":{}}"""
    made = program(
        f"""
        %a = f32[8]{{0}} parameter(0)
        %w = f32[8]{{0}} while(%a), condition=%small, body=%large, {known}
        %u = f32[8]{{0}} while(%w), condition=%small, body=%large
        %c = f32[8]{{0}} conditional(%i, %u, %u), branch_computations={{%small, %large}}
        ROOT %l = f32[8]{{0}} call(%c), to_apply=%small
        """,
        BRANCHES,
    )
    assert total_kernels(kernels(made)) == 5 * 3 + 3 + 2 + 1
    assert loops_of_unknown_length(made) == 1
    assert (
        read_text("ENTRY %m (a: f32[]) -> f32[] {\n  ROOT %a = f32[] parameter(0)\n}", NO_MEMORY).kernels == 0
    )


COUNTED = """
%test (p: (s32[], f32[8])) -> pred[] {
  %n = s32[] constant(9)
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %n), direction=DIRECTION
}

%turn (q: (s32[], f32[8])) -> (s32[], f32[8]) {
  %q = (s32[], f32[8]{0}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %kept = s32[]{:T(128)} copy(%j)
  %step = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%kept, %step)
  %x = f32[8]{0} get-tuple-element(%q), index=1
  %y = f32[8]{0} fusion(%x), kind=kLoop, calls=%none
  ROOT %both = (s32[], f32[8]{0}) tuple(%next, %y)
}
"""


@pytest.mark.parametrize(
    ("direction", "start", "turns"),
    [("LT", "constant(2)", 4), ("NE", "constant(2)", None), ("LT", "iota()", None)],
)
def test_a_loop_counts_as_its_counter_says(direction, start, turns):
    """A TPU's compiler does not write beside a loop how often it turns."""
    made = program(
        f"""
        %a = f32[8]{{0}} parameter(0)
        %first = s32[]{{:T(128)}} {start}
        %moved = s32[]{{:T(128)}} copy(%first)
        %begin = (s32[], f32[8]{{0}}) tuple(%moved, %a)
        ROOT %w = (s32[], f32[8]{{0}}) while(%begin), condition=%test, body=%turn
        """,
        COUNTED.replace("DIRECTION", direction),
    )
    assert loops_of_unknown_length(made) == (turns is None)
    fusions = [kernel for kernel in kernels(made) if kernel.instruction.opcode == "fusion"]
    assert [kernel.runs for kernel in fusions] == [turns or 1]


def test_what_devices_exchange():
    text = (
        "ENTRY %m (a: f32[8]) -> f32[8] {\n  %a = f32[8]{0} parameter(0)\n"
        "  %s = f32[8]{0} all-reduce-start(%a), to_apply=%sum\n"
        "  ROOT %d = f32[8]{0} all-reduce-done(%s)\n}"
    )
    assert read_text(text, NO_MEMORY).exchanged == 64


CONVOLUTIONS = {
    # 2 · outputs · taps · inputs of each
    "__cudnn$convForward": ("bf16[1,100,16]", "bf16[1,100,8]", "bf16[16,7,8]", 2 * 1600 * 7 * 8),
    "__cudnn$convBackwardInput": ("bf16[1,100,8]", "bf16[1,50,16]", "bf16[16,7,8]", 2 * 800 * 7 * 8),
    "__cudnn$convBackwardFilter": ("bf16[16,7,8]", "bf16[1,100,8]", "bf16[1,50,16]", 2 * 800 * 7 * 8),
}


@pytest.mark.parametrize("target", CONVOLUTIONS)
def test_operations_of_cudnn(target):
    result, first, second, wanted = CONVOLUTIONS[target]
    made = program(
        f"""
        %a = {first} parameter(0)
        %b = {second} parameter(1)
        ROOT %c = ({result}, u8[0]{{0}}) custom-call(%a, %b), window={{size=7 pad=3_3}},
        """.strip().removesuffix(",")
        + f', dim_labels=b0f_o0i->b0f, custom_call_target="{target}"'
    )
    assert operations(made) == {"bf16": wanted}


def test_operations_of_cublas():
    numbers = '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}'
    config = f'backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":{numbers}}}}}'
    made = program(
        f"""
        %a = f32[3,5] parameter(0)
        %b = f32[5,7] parameter(1)
        ROOT %c = (f32[3,7], s8[0]) custom-call(%a, %b), custom_call_target="__cublas$gemm", {config}
        """
    )
    assert operations(made) == {"tf32": 2 * 3 * 5 * 7}


@pytest.mark.parametrize(("precision", "kind"), [("highest", "f32"), (None, "tf32")])
def test_operations_of_a_compiled_product(precision, kind):
    def product(x, y):
        return jnp.dot(x, y, precision=precision) + 1

    compiled = jax.jit(product).lower(jnp.zeros((30, 50)), jnp.zeros((50, 70))).compile()
    assert read(compiled).operations == {kind: 2 * 30 * 50 * 70}


def test_operations_of_a_strided_convolution_and_of_its_gradient():
    def strided(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (4,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))

    x, kernel = jnp.zeros((1, 400, 3)), jnp.zeros((4, 3, 5))
    forward = 2 * 100 * 5 * 4 * 3
    # The text before optimization, since a CPU's own forms of a convolution are no convolutions any more.
    text = jax.jit(strided).lower(x, kernel).as_text(dialect="hlo")
    assert operations(Program.parse(text)) == {"tf32": forward}
    text = jax.jit(jax.grad(lambda x: strided(x, kernel).sum())).lower(x).as_text(dialect="hlo")
    assert sum(operations(Program.parse(text)).values()) == pytest.approx(forward, rel=0.02)


def test_a_loop_of_a_compiled_program():
    def looped(x):
        return jax.lax.fori_loop(0, 10, lambda _, x: jnp.sin(x @ x), x)

    reading = read(jax.jit(looped).lower(jnp.zeros((64, 64))).compile())
    assert sum(reading.operations.values()) == 10 * 2 * 64**3
    assert 10 * 2 * 2 * 64 * 64 * 4 <= reading.bytes <= 10 * 4 * 2 * 64 * 64 * 4
    assert reading.unknown_loops == 0


def test_memory_of_a_compiled_program():
    donated = jax.jit(lambda x, y: (x + y.sum(), y[:3]), donate_argnums=0)
    memory = read(donated.lower(jnp.zeros(1000), jnp.zeros(8)).compile()).memory
    assert (memory.arguments, memory.aliased) == (4032, 4000)
    assert memory.outputs == pytest.approx(4012, abs=64)  # with the table of a tuple
    assert memory.besides_arguments == memory.total - 4032


def test_a_text_without_a_program():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        read_text(None, NO_MEMORY)
