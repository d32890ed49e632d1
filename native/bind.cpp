// The Python face of the kernels, and the only file that knows Python.
//
// Every shape, type and index is checked here, so that kernels can trust what they get.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <system_error>
#include <vector>

#include "bind_program.h"
#include "ops.h"
#include "philox.h"
#include "views.h"

namespace hexad {
namespace {

struct FormatGroup {
    Format format;
    int group;
};

FormatGroup format_of(const std::string& name) {
    FormatGroup found{};
    if (!parse_format(name, &found.format, &found.group))
        refuse("format is '" + name + "'; it must be float32, bfloat16, int8, int4-128, int4-64 or int4-32");
    return found;
}

void check_leaves(int leaves) {
    if (leaves != 1 && leaves != kMaxLeaves)
        refuse("leaves is " + std::to_string(leaves) + "; it must be 1 or " + std::to_string(kMaxLeaves));
}

LinearWeight pack(Engine& engine, nb::handle weight_NK, const std::string& name, int leaves) {
    View weight(weight_NK, "weight_NK");
    weight.type({Type::f32, Type::bf16, Type::f16}).shape({kAny, kAny}).contiguous();
    auto [format, group] = format_of(name);
    check_leaves(leaves);
    HostDtype source = weight.type() == Type::f32    ? HostDtype::f32
                       : weight.type() == Type::bf16 ? HostDtype::bf16
                                                     : HostDtype::f16;
    Working working;
    return pack_linear(engine.pool(), weight.raw(), source, weight.size(0), weight.size(1), format, group, leaves);
}

Bytes borrow(nb::handle array, const char* name, size_t bytes) {
    View view(array, name);
    view.type({Type::u8}).shape({int64_t(bytes)}).contiguous();
    if (bytes && reinterpret_cast<uintptr_t>(view.raw()) % 64)
        view.fail("must begin at a multiple of 64 bytes in memory");
    return Bytes(view.raw(), bytes);
}

LinearWeight adopt(Engine&, const std::string& name, int64_t outputs, int64_t inputs, int leaves, nb::handle tiles,
                   nb::handle scales, nb::handle sums) {
    auto [format, group] = format_of(name);
    check_leaves(leaves);
    constexpr int64_t kMost = int64_t(1) << 28;  // no size below overflows
    if (outputs < 0 || inputs < 0 || outputs >= kMost || inputs >= kMost)
        refuse("a linear of " + std::to_string(outputs) + " outputs and " + std::to_string(inputs) +
               " inputs; both must be 0 to " + std::to_string(kMost - 1));
    LinearWeight w = shape_linear(outputs, inputs, format, group, leaves);
    w.tiles = borrow(tiles, "tiles", w.tiles_size());
    w.scales = borrow(scales, "scales", w.scales_size());
    w.sums = borrow(sums, "sums", w.sums_size());
    return w;
}

// Read-only, for as long as the array lives.
template <Bytes LinearWeight::* Part>
nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>> bytes_of(nb::handle self) {
    const Bytes& part = nb::cast<const LinearWeight&>(self).*Part;
    return {part.data, {part.size}, self};
}

void linear(Engine& engine, nb::handle x_TK, const LinearWeight& weight, nb::handle bias_N, nb::handle out_any,
            const std::string& finish) {
    View x(x_TK, "x_TK");
    x.type({Type::f32}).shape({kAny, weight.inputs}).dense_rows();
    if (finish != "store" && finish != "add" && finish != "silu_mul")
        refuse("finish is '" + finish + "'; it must be store, add or silu_mul");
    bool halves = finish == "silu_mul";
    if (halves && weight.outputs % 32)
        refuse("finish is silu_mul, which needs a multiple of 32 outputs, not " + std::to_string(weight.outputs));
    View out = floats(out_any, "out", {x.size(0), halves ? weight.outputs / 2 : weight.outputs});
    out.writeable();
    const float* bias = bias_N.is_none() ? nullptr : floats(bias_N, "bias_N", {weight.outputs}).as<const float>();
    Finish how = halves ? Finish::silu_mul : finish == "add" ? Finish::add : Finish::store;
    Working working;
    engine.linear(weight, x.as<const float>(), x.stride(0), x.size(0), {how, out.as<float>(), bias});
}

void embedding(Engine& engine, nb::handle table_VD, nb::handle token_ids_T, nb::handle out_TD) {
    View table(table_VD, "table_VD");
    table.type({Type::f32, Type::bf16}).shape({kAny, kAny}).contiguous();
    View ids = ints(token_ids_T, "token_ids_T", {kAny});
    ids.indices(table.size(0), "token ids");
    View out = floats(out_TD, "out_TD", {ids.size(0), table.size(1)});
    Working working;
    engine.embedding({table.raw(), table.dtype(), table.size(1), ids.as<const int32_t>(), out.as<float>()},
                     ids.size(0));
}

void rms_norm(Engine& engine, nb::handle x_any, nb::handle weight_E, float eps, nb::handle out_any) {
    View x(x_any, "x"), out(out_any, "out");
    if (x.dims() != 2 && x.dims() != 3) x.fail("must have 2 or 3 axes");
    x.type({Type::f32}).dense_rows();
    out.type({Type::f32}).contiguous();
    bool heads = x.dims() == 3;
    int64_t width = x.size(x.dims() - 1);
    if (heads)
        out.shape({x.size(0), x.size(1), width});
    else
        out.shape({x.size(0), width});
    View weight = floats(weight_E, "weight", {width});
    NormArgs args{x.as<const float>(),      x.stride(0), heads ? x.stride(1) : 0, heads ? x.size(1) : 1, width, nullptr,
                  weight.as<const float>(), eps,         out.as<float>()};
    Working working;
    engine.norm(args, x.size(0));
}

void add_rms_norm(Engine& engine, nb::handle x_TD, nb::handle residual_TD, nb::handle weight_D, float eps,
                  nb::handle out_TD) {
    View x(x_TD, "x_TD");
    x.type({Type::f32}).shape({kAny, kAny}).dense_rows();
    int64_t tokens = x.size(0), width = x.size(1);
    View residual = floats(residual_TD, "residual_TD", {tokens, width});
    residual.writeable();
    View weight = floats(weight_D, "weight_D", {width}), out = floats(out_TD, "out_TD", {tokens, width});
    NormArgs args{x.as<const float>(), x.stride(0), 0, 1, width, residual.as<float>(), weight.as<const float>(), eps,
                  out.as<float>()};
    Working working;
    engine.norm(args, tokens);
}

void silu_mul(Engine& engine, nb::handle gate_up_any, nb::handle out_TI) {
    View gate_up = floats(gate_up_any, "gate_up", {kAny, kAny});
    if (gate_up.size(1) % 2) gate_up.fail("must have an even last axis: gate, then up");
    int64_t width = gate_up.size(1) / 2;
    View out = floats(out_TI, "out_TI", {gate_up.size(0), width});
    Working working;
    engine.silu_mul({gate_up.as<const float>(), width, out.as<float>()}, gate_up.size(0));
}

View heads_view(nb::handle array, const char* name, std::initializer_list<int64_t> shape) {
    View view(array, name);
    view.type({Type::f32}).shape(shape).dense_rows();
    return view;
}

// Null where there is none.
const float* norm_weight(nb::handle array, const char* name, int64_t width) {
    return array.is_none() ? nullptr : floats(array, name, {width}).as<const float>();
}

void rope_kv_write(Engine& engine, nb::handle q_THE, nb::handle k_TGE, nb::handle v_TGE, nb::handle cos_sin_any,
                   nb::handle positions_T, nb::handle slots_T, nb::handle k_pages, nb::handle v_pages,
                   nb::handle q_weight_E, nb::handle k_weight_E, float eps, nb::handle out_THE) {
    Cache kv = cache(k_pages, v_pages);
    View q = heads_view(q_THE, "q_THE", {kAny, kAny, kv.head_dim});
    int64_t tokens = q.size(0), heads = q.size(1);
    View k = heads_view(k_TGE, "k_TGE", {tokens, kv.kv_heads, kv.head_dim});
    View v = heads_view(v_TGE, "v_TGE", {tokens, kv.kv_heads, kv.head_dim});
    View cos_sin = floats(cos_sin_any, "cos_sin", {kAny, kv.head_dim});
    View positions = ints(positions_T, "step.positions_T", {tokens}), slots = ints(slots_T, "step.slots_T", {tokens});
    positions.indices(cos_sin.size(0), "positions");
    slots.indices(kv.pages * kPageTokens, "slots");
    View out = floats(out_THE, "out_THE", {tokens, heads, kv.head_dim});
    RopeArgs args{q.as<const float>(),
                  k.as<const float>(),
                  v.as<const float>(),
                  q.stride(0),
                  q.stride(1),
                  k.stride(0),
                  k.stride(1),
                  v.stride(0),
                  v.stride(1),
                  heads,
                  kv.kv_heads,
                  kv.head_dim,
                  norm_weight(q_weight_E, "q_weight", kv.head_dim),
                  norm_weight(k_weight_E, "k_weight", kv.head_dim),
                  eps,
                  cos_sin.as<const float>(),
                  positions.as<const int32_t>(),
                  slots.as<const int32_t>(),
                  out.as<float>(),
                  kv.k.raw(),
                  kv.v.raw(),
                  kv.k.dtype()};
    Working working;
    engine.rope(args, tokens);
}

void attention(Engine& engine, nb::handle q_THE, nb::handle positions_T, nb::handle query_starts_S1,
               nb::handle page_table_SP, nb::handle k_pages, nb::handle v_pages, float scale, int64_t window,
               bool cascade, nb::handle out_any) {
    Cache kv = cache(k_pages, v_pages);
    View q = floats(q_THE, "q_THE", {kAny, kAny, kv.head_dim});
    int64_t tokens = q.size(0), heads = q.size(1);
    if (kv.kv_heads == 0 || heads % kv.kv_heads)
        q.fail("has " + std::to_string(heads) + " heads, no multiple of the " + std::to_string(kv.kv_heads) +
               " of the cache");
    View positions = ints(positions_T, "step.positions_T", {tokens});
    View starts = ints(query_starts_S1, "step.query_starts_S1", {kAny});
    View page_table = ints(page_table_SP, "step.page_table_SP", {starts.size(0) - 1, kAny});
    check_sequences(starts, positions, page_table, kv.pages);
    View out = floats(out_any, "out", {tokens, heads * kv.head_dim});
    AttentionArgs args{};
    args.q = q.as<const float>();
    args.heads = heads;
    args.kv_heads = kv.kv_heads;
    args.head_dim = kv.head_dim;
    args.k_pages = kv.k.raw();
    args.v_pages = kv.v.raw();
    args.kv_dtype = kv.k.dtype();
    args.positions = positions.as<const int32_t>();
    args.page_table = page_table.as<const int32_t>();
    args.page_table_stride = page_table.size(1);
    args.scale = scale;
    args.window = window;
    args.out = out.as<float>();
    Working working;
    engine.attention(args, starts.as<const int32_t>(), starts.size(0) - 1, cascade);
}

void sample(Engine& engine, nb::handle logits_RV, nb::handle how_R, nb::handle out_R) {
    View logits = floats(logits_RV, "logits_RV", {kAny, kAny});
    int64_t rows = logits.size(0), vocab = logits.size(1);
    View how(how_R, "how_R");
    how.type({Type::sampling}).shape({rows}).contiguous();
    View out = ints(out_R, "out_R", {rows});
    Working working;
    engine.sample(logits.as<const float>(), rows, vocab, how.as<const RowSampling>(), out.as<int32_t>());
}

void top_logprobs(Engine& engine, nb::handle logits_RV, nb::handle token_ids_R, int n, nb::handle chosen_R,
                  nb::handle rank_R, nb::handle ids_RN, nb::handle logprobs_RN) {
    View logits = floats(logits_RV, "logits_RV", {kAny, kAny});
    int64_t rows = logits.size(0), vocab = logits.size(1);
    if (n < 0 || n > vocab) refuse("n is " + std::to_string(n) + "; it must be 0 to " + std::to_string(vocab));
    View tokens = ints(token_ids_R, "token_ids_R", {rows});
    tokens.indices(vocab, "token ids");
    View chosen = floats(chosen_R, "chosen_R", {rows}), logprobs = floats(logprobs_RN, "logprobs_RN", {rows, n});
    View rank = ints(rank_R, "rank_R", {rows}), ids = ints(ids_RN, "ids_RN", {rows, n});
    Working working;
    engine.top_logprobs(logits.as<const float>(), rows, vocab, tokens.as<const int32_t>(), n, chosen.as<float>(),
                        rank.as<int32_t>(), ids.as<int32_t>(), logprobs.as<float>());
}

void populate_array(nb::handle pages, int64_t first_byte, int64_t bytes) {
    View view(pages, "pages");
    view.contiguous().writeable();
    if (first_byte < 0 || bytes < 0 || first_byte + bytes > view.nbytes()) refuse("bytes beyond the array");
    Working working;
    populate(view.as<char>() + first_byte, size_t(bytes));
}

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const char* const* name = available_isas(); *name; ++name) names.emplace_back(*name);
    return names;
}

// In place: a member of the engine must not move, its workers hold on to it.
void make_engine(Engine* self, int threads, const std::string& isa) {
    const Kernels* kernels = kernels_for(isa.c_str());
    if (!kernels) refuse("no kernels for '" + isa + "' here");
    if (threads < 1 || threads > 1024) refuse("threads is " + std::to_string(threads) + "; it must be 1 to 1024");
    try {
        new (self) Engine(*kernels, threads);
    } catch (const std::system_error& error) {
        refuse("threads is " + std::to_string(threads) + ", but the system does not grant as many: " + error.what());
    }
}

nb::tuple philox_words(nb::tuple counter, nb::tuple key) {
    uint32_t words[4][1];
    for (size_t i = 0; i < 4; ++i) words[i][0] = nb::cast<uint32_t>(counter[i]);
    philox(words, nb::cast<uint32_t>(key[0]), nb::cast<uint32_t>(key[1]));
    return nb::make_tuple(words[0][0], words[1][0], words[2][0], words[3][0]);
}

// The class lives as long as the interpreter: errors can be raised until its end.
void translate_refusals() {
    PyObject* kernel_error = nb::module_::import_("hexad.errors").attr("KernelError").inc_ref().ptr();
    nb::register_exception_translator(
        [](const std::exception_ptr& thrown, void* type) {
            try {
                std::rethrow_exception(thrown);
            } catch (const Refused& refused) {
                PyErr_SetString(static_cast<PyObject*>(type), refused.what());
            }
        },
        kernel_error);
}

}  // namespace
}  // namespace hexad

NB_MODULE(_native, m) {
    using namespace hexad;
    translate_refusals();
    bind_program(m);
    m.def("available_isas", &isas);
    m.def("populate", &populate_array);
    m.def("philox4x32", &philox_words, nb::arg("counter"), nb::arg("key"));
    nb::class_<LinearWeight>(m, "LinearWeight")
        .def_ro("outputs", &LinearWeight::outputs)
        .def_ro("inputs", &LinearWeight::inputs)
        .def_ro("leaves", &LinearWeight::leaves)
        .def_prop_ro("format", &format_name)
        .def_prop_ro("nbytes", &LinearWeight::nbytes)
        .def_prop_ro("tiles", &bytes_of<&LinearWeight::tiles>)
        .def_prop_ro("scales", &bytes_of<&LinearWeight::scales>)
        .def_prop_ro("sums", &bytes_of<&LinearWeight::sums>);
    nb::class_<Engine>(m, "Engine")
        .def("__init__", &make_engine, nb::arg("threads"), nb::arg("isa"))
        .def_prop_ro("threads", &Engine::threads)
        .def_prop_ro("isa", [](const Engine& engine) { return engine.kernels().isa; })
        .def("pack_linear", &pack)
        .def("adopt_linear", &adopt, nb::arg("format"), nb::arg("outputs"), nb::arg("inputs"), nb::arg("leaves"),
             nb::arg("tiles"), nb::arg("scales"), nb::arg("sums"), nb::keep_alive<0, 6>(), nb::keep_alive<0, 7>(),
             nb::keep_alive<0, 8>())
        .def("linear", &linear, nb::arg("x_TK"), nb::arg("weight"), nb::arg("bias_N").none(), nb::arg("out"),
             nb::arg("finish") = "store")
        .def("embedding", &embedding)
        .def("rms_norm", &rms_norm)
        .def("add_rms_norm", &add_rms_norm)
        .def("silu_mul", &silu_mul)
        .def("rope_kv_write", &rope_kv_write, nb::arg("q_THE"), nb::arg("k_TGE"), nb::arg("v_TGE"), nb::arg("cos_sin"),
             nb::arg("positions_T"), nb::arg("slots_T"), nb::arg("k_pages"), nb::arg("v_pages"),
             nb::arg("q_weight_E").none(), nb::arg("k_weight_E").none(), nb::arg("eps"), nb::arg("out_THE"))
        .def("attention", &attention)
        .def("sample", &sample)
        .def("top_logprobs", &top_logprobs)
        .def("read_bandwidth", &Engine::read_bandwidth, nb::call_guard<nb::gil_scoped_release>())
        .def("arithmetic_rate", [](Engine& engine, const std::string& name) {
            Format format = format_of(name).format;
            Working working;
            return engine.arithmetic_rate(format);
        });
}
