#include "bind_program.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <tuple>

#include "program.h"
#include "views.h"

namespace hexad {
namespace {

// Of the wanted rows?, slot, first column, columns of a row.
using OperandTuple = std::tuple<bool, int, int64_t, int64_t>;
// A norm's weight, or None, and eps.
using NormTuple = std::tuple<nb::object, float>;

Operand operand(const OperandTuple& tuple) {
    return {std::get<0>(tuple), std::get<1>(tuple), std::get<2>(tuple), std::get<3>(tuple)};
}

NormSpec norm_spec(const NormTuple& tuple, int64_t width) {
    if (std::get<0>(tuple).is_none()) return {};
    return {floats(std::get<0>(tuple), "norm weight", {width}).as<const float>(), std::get<1>(tuple)};
}

// A program, what its steps are checked against, and what it points into.
struct Bound {
    Program program;
    int64_t vocab = 0, logits = 0, positions = INT32_MAX, pages = INT32_MAX;
    nb::list kept;

    Bound(Engine& engine, std::vector<int64_t> token_slots, std::vector<int64_t> wanted_slots)
        : program(engine, std::move(token_slots), std::move(wanted_slots)) {}
};

void add_embedding(Bound& self, nb::handle table_VD, OperandTuple out) {
    View table(table_VD, "table_VD");
    table.type({Type::f32, Type::bf16}).shape({kAny, kAny}).contiguous();
    self.vocab = table.size(0);
    self.kept.append(table_VD);
    self.program.embedding(table.raw(), table.dtype(), table.size(1), operand(out));
}

void add_norm(Bound& self, OperandTuple x, int64_t heads, int64_t width, NormTuple norm, OperandTuple out) {
    self.kept.append(std::get<0>(norm));
    self.program.norm(operand(x), heads, width, norm_spec(norm, width), operand(out));
}

void add_linear(Bound& self, nb::object weight, OperandTuple x, NormTuple norm, nb::object bias_N, bool residual,
                bool silu, OperandTuple out) {
    auto& bound = nb::cast<const LinearWeight&>(weight);
    const float* bias = bias_N.is_none() ? nullptr : floats(bias_N, "bias_N", {bound.outputs}).as<const float>();
    for (nb::object each : {weight, bias_N, std::get<0>(norm)}) self.kept.append(each);
    self.logits = bound.outputs;
    self.program.linear(bound, operand(x), norm_spec(norm, bound.inputs),
                        residual ? Finish::add
                        : silu   ? Finish::silu_mul
                                 : Finish::store,
                        bias, operand(out));
}

void add_rope(Bound& self, OperandTuple q, OperandTuple k, OperandTuple v, int64_t heads, nb::object cos_sin,
              nb::object k_pages, nb::object v_pages, NormTuple q_norm, NormTuple k_norm, OperandTuple out) {
    Cache kv = cache(k_pages, v_pages);
    View table = floats(cos_sin, "cos_sin", {kAny, kv.head_dim});
    NormSpec q_spec = norm_spec(q_norm, kv.head_dim), k_spec = norm_spec(k_norm, kv.head_dim);
    for (nb::object each : {cos_sin, k_pages, v_pages, std::get<0>(q_norm), std::get<0>(k_norm)}) self.kept.append(each);
    self.positions = std::min(self.positions, table.size(0));
    self.pages = std::min(self.pages, kv.pages);
    RopeArgs args{};
    args.q_token = operand(q).stride, args.k_token = operand(k).stride, args.v_token = operand(v).stride;
    args.q_head = args.k_head = args.v_head = kv.head_dim;
    args.heads = heads, args.kv_heads = kv.kv_heads, args.head_dim = kv.head_dim;
    args.cos_sin = table.as<const float>();
    args.k_pages = kv.k.raw(), args.v_pages = kv.v.raw(), args.kv_dtype = kv.k.dtype();
    args.q_weight = q_spec.weight, args.k_weight = k_spec.weight, args.eps = q_spec.eps;
    self.program.rope(args, operand(q), operand(k), operand(v), operand(out));
}

void add_attention(Bound& self, OperandTuple q, int64_t heads, nb::object k_pages, nb::object v_pages, float scale,
                   int64_t window, bool cascade, OperandTuple out) {
    Cache kv = cache(k_pages, v_pages);
    for (nb::object each : {k_pages, v_pages}) self.kept.append(each);
    AttentionArgs args{};
    args.heads = heads, args.kv_heads = kv.kv_heads, args.head_dim = kv.head_dim;
    args.k_pages = kv.k.raw(), args.v_pages = kv.v.raw(), args.kv_dtype = kv.k.dtype();
    args.scale = scale, args.window = window;
    self.program.attention(args, cascade, operand(q), operand(out));
}

// The logits [R, V] of the wanted rows, in the program's own memory: they stay until the next run.
nb::object run(Bound& self, nb::handle token_ids_T, nb::handle positions_T, nb::handle slots_T,
               nb::handle query_starts_S1, nb::handle page_table_SP, nb::handle output_rows_R) {
    View ids = ints(token_ids_T, "step.token_ids_T", {kAny});
    int64_t tokens = ids.size(0);
    ids.indices(self.vocab, "token ids");
    View positions = ints(positions_T, "step.positions_T", {tokens}), slots = ints(slots_T, "step.slots_T", {tokens});
    positions.indices(self.positions, "positions");
    slots.indices(self.pages * kPageTokens, "slots");
    View starts = ints(query_starts_S1, "step.query_starts_S1", {kAny});
    View page_table = ints(page_table_SP, "step.page_table_SP", {starts.size(0) - 1, kAny});
    check_sequences(starts, positions, page_table, self.pages);
    View outputs = ints(output_rows_R, "step.output_rows_R", {kAny});
    outputs.indices(tokens, "rows");
    StepArrays step{tokens,
                    starts.size(0) - 1,
                    outputs.size(0),
                    ids.as<const int32_t>(),
                    positions.as<const int32_t>(),
                    slots.as<const int32_t>(),
                    starts.as<const int32_t>(),
                    page_table.as<const int32_t>(),
                    outputs.as<const int32_t>(),
                    page_table.size(1)};
    const float* logits;
    {
        Working working;
        logits = self.program.run(step);
    }
    using Logits = nb::ndarray<nb::numpy, const float, nb::ndim<2>>;
    return nb::cast(Logits(logits, {size_t(step.outputs), size_t(self.logits)}, nb::find(self)),
                    nb::rv_policy::reference);
}

}  // namespace

void bind_program(nb::module_& m) {
    nb::class_<Bound>(m, "Program")
        .def(nb::init<Engine&, std::vector<int64_t>, std::vector<int64_t>>(), nb::keep_alive<1, 2>())
        .def("embedding", &add_embedding)
        .def("take_rows", [](Bound& self, OperandTuple x, int64_t width,
                             OperandTuple out) { self.program.take_rows(operand(x), width, operand(out)); })
        .def("add", [](Bound& self, OperandTuple x, OperandTuple residual, int64_t width,
                       OperandTuple out) { self.program.add(operand(x), operand(residual), width, operand(out)); })
        .def("norm", &add_norm)
        .def("linear", &add_linear, nb::arg("weight"), nb::arg("x"), nb::arg("norm"), nb::arg("bias_N").none(),
             nb::arg("residual"), nb::arg("silu"), nb::arg("out"))
        .def("silu_mul", [](Bound& self, OperandTuple x, int64_t width,
                            OperandTuple out) { self.program.silu_mul(operand(x), width, operand(out)); })
        .def("rope", &add_rope)
        .def("attention", &add_attention)
        .def("run", &run)
        .def("reset_clock", [](Bound& self, bool each) { self.program.reset_clock(each); })
        .def("clock", [](const Bound& self) {
            const auto& clock = self.program.clock();
            return nb::make_tuple(clock.seconds, clock.runs, clock.calls);
        });
}

}  // namespace hexad
