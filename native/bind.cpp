// The Python face of the kernels, and the only file that knows Python.
//
// Arrays come in through `__array_struct__`, numpy's documented C description of an array: it
// is cheap, needs no numpy header, and knows ml_dtypes' bfloat16 (as two opaque bytes). Every
// shape, type and index is checked here, so that kernels can trust what they get.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "ops.h"
#include "philox.h"

namespace nb = nanobind;

namespace hexad {
namespace {

// numpy's PyArrayInterface, as its "array interface protocol" page gives it.
struct ArrayInterface {
    int two, nd;
    char kind;
    int itemsize, flags;
    Py_ssize_t *shape, *strides;
    void* data;
    PyObject* descr;
};
constexpr int kContiguous = 0x1, kWriteable = 0x400;

// Raised in Python as hexad.errors.KernelError.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

[[noreturn]] void refuse(const std::string& why) { throw Refused(why); }

enum class Type { f32, bf16, f16, u8, i32, i64, u64, other };

const char* type_name(Type type) {
    switch (type) {
        case Type::f32: return "float32";
        case Type::bf16: return "bfloat16";
        case Type::f16: return "float16";
        case Type::u8: return "uint8";
        case Type::i32: return "int32";
        case Type::i64: return "int64";
        case Type::u64: return "uint64";
        default: return "an unsupported type";
    }
}

Type type_of(char kind, int itemsize) {
    if (kind == 'f' && itemsize == 4) return Type::f32;
    if (kind == 'f' && itemsize == 2) return Type::f16;
    if (kind == 'V' && itemsize == 2) return Type::bf16;
    if (kind == 'u' && itemsize == 1) return Type::u8;
    if (kind == 'i' && itemsize == 4) return Type::i32;
    if (kind == 'i' && itemsize == 8) return Type::i64;
    if (kind == 'u' && itemsize == 8) return Type::u64;
    return Type::other;
}

// While kernels run: other Python threads go on, and floats behave the same on every thread.
struct Working {
    nb::gil_scoped_release release;
    PlainFloats floats;
};

constexpr int64_t kAny = -1;
constexpr int kMaxDims = 4;

// A borrowed array: valid while the Python call's arguments live.
class View {
  public:
    View(nb::handle array, const char* name) : name_(name) {
        nb::object capsule = nb::steal(PyObject_GetAttrString(array.ptr(), "__array_struct__"));
        if (!capsule.is_valid()) {
            PyErr_Clear();
            refuse(std::string(name) + " must be a numpy array");
        }
        auto found = static_cast<const ArrayInterface*>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
        if (!found) throw nb::python_error();
        nd_ = found->nd;
        type_ = type_of(found->kind, found->itemsize);
        itemsize_ = found->itemsize;
        flags_ = found->flags;
        data_ = found->data;
        for (int i = 0; i < nd_ && i < kMaxDims; ++i) {
            shape_[i] = found->shape[i];
            strides_[i] = found->strides[i];
        }
    }

    const View& type(std::initializer_list<Type> allowed) const {
        for (Type type : allowed)
            if (type == type_) return *this;
        std::string names;
        for (Type type : allowed) names += (names.empty() ? "" : " or ") + std::string(type_name(type));
        fail("must be " + names + ", not " + type_name(type_) + " of " + std::to_string(itemsize_) + " bytes");
    }
    const View& shape(std::initializer_list<int64_t> wanted) const {
        bool same = size_t(nd_) == wanted.size();
        int i = 0;
        for (int64_t size : wanted) {
            same = same && (size == kAny || size == shape_[i]);
            ++i;
        }
        if (!same) fail("must have shape " + text(wanted) + ", not " + text(*this));
        return *this;
    }
    const View& contiguous() const {
        if (!(flags_ & kContiguous)) fail("must be C-contiguous");
        return *this;
    }
    // The last axis without gaps; the others may have any stride of whole elements.
    const View& dense_rows() const {
        bool whole = true;
        for (int i = 0; i < nd_; ++i) {
            if (shape_[i] == 0) return *this;  // numpy gives an empty array no strides
        }
        for (int i = 0; i + 1 < nd_; ++i) whole = whole && strides_[i] % itemsize_ == 0;
        if (!whole || (shape_[nd_ - 1] > 1 && strides_[nd_ - 1] != itemsize_))
            fail("must be contiguous along its last axis");
        return *this;
    }
    const View& writeable() const {
        if (!(flags_ & kWriteable)) fail("must be writeable");
        return *this;
    }

    int64_t size(int axis) const { return shape_[axis]; }
    int64_t stride(int axis) const { return strides_[axis] / itemsize_; }
    int dims() const { return nd_; }
    Type type() const { return type_; }
    Dtype dtype() const { return type_ == Type::bf16 ? Dtype::bf16 : Dtype::f32; }
    void* raw() const { return data_; }
    template <typename T>
    T* as() const {
        return static_cast<T*>(data_);
    }

    [[noreturn]] void fail(const std::string& what) const { refuse(std::string(name_) + " " + what); }

    // Every entry of an int32 vector within [0, limit).
    const View& indices(int64_t limit, const char* of) const {
        const int32_t* ids = as<const int32_t>();
        for (int64_t i = 0; i < shape_[0]; ++i)
            if (ids[i] < 0 || ids[i] >= limit)
                fail("has " + std::to_string(ids[i]) + " at index " + std::to_string(i) + "; " + of + " are 0 to " +
                     std::to_string(limit - 1));
        return *this;
    }

  private:
    static std::string text(std::initializer_list<int64_t> sizes) {
        std::string all;
        for (int64_t size : sizes)
            all += (all.empty() ? "" : ", ") + (size == kAny ? std::string("any") : std::to_string(size));
        return "[" + all + "]";
    }
    static std::string text(const View& view) {
        std::string all;
        for (int i = 0; i < view.nd_; ++i)
            all += (i ? ", " : "") + (i < kMaxDims ? std::to_string(view.shape_[i]) : "?");
        return "[" + all + "]";
    }

    const char* name_;
    int nd_, itemsize_, flags_;
    Type type_;
    void* data_;
    int64_t shape_[kMaxDims] = {1, 1, 1, 1}, strides_[kMaxDims] = {};
};

View floats(nb::handle array, const char* name, std::initializer_list<int64_t> shape) {
    View view(array, name);
    view.type({Type::f32}).shape(shape).contiguous();
    return view;
}

View ints(nb::handle array, const char* name, std::initializer_list<int64_t> shape) {
    View view(array, name);
    view.type({Type::i32}).shape(shape).contiguous();
    return view;
}

struct Cache {
    View k, v;
    int64_t pages, kv_heads, head_dim;
};

Cache cache(nb::handle k_PGE16, nb::handle v_PG16E) {
    View k(k_PGE16, "kv.k_PGE16"), v(v_PG16E, "kv.v_PG16E");
    k.type({Type::f32, Type::bf16}).shape({kAny, kAny, kAny, kPageTokens}).contiguous().writeable();
    int64_t pages = k.size(0), kv_heads = k.size(1), head_dim = k.size(2);
    v.type({k.type()}).shape({pages, kv_heads, kPageTokens, head_dim}).contiguous().writeable();
    if (head_dim < 2 || head_dim % 2 || head_dim > kMaxHeadDim)
        k.fail("has a head dimension of " + std::to_string(head_dim) + "; it must be even and at most " +
               std::to_string(kMaxHeadDim));
    return {k, v, pages, kv_heads, head_dim};
}

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

void rope_kv_write(Engine& engine, nb::handle q_THE, nb::handle k_TGE, nb::handle v_TGE, nb::handle cos_sin_any,
                   nb::handle positions_T, nb::handle slots_T, nb::handle k_PGE16, nb::handle v_PG16E,
                   nb::handle out_THE) {
    Cache kv = cache(k_PGE16, v_PG16E);
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

// Each sequence's rows cover [0, tokens) in order, and each row's keys lie in pages that exist.
void check_sequences(const View& starts, const View& positions, const View& page_table, int64_t pages) {
    const int32_t* start = starts.as<const int32_t>();
    const int32_t* position = positions.as<const int32_t>();
    int64_t sequences = starts.size(0) - 1, width = page_table.size(1);
    if (sequences < 0 || start[0] != 0 || start[sequences] != positions.size(0))
        starts.fail("must begin with 0 and end with the number of tokens");
    for (int64_t s = 0; s < sequences; ++s) {
        if (start[s] > start[s + 1]) starts.fail("must be ascending");
        for (int32_t row = start[s]; row < start[s + 1]; ++row)
            if (position[row] < 0 || (row > start[s] && position[row] <= position[row - 1]))
                positions.fail("must be ascending in each sequence");
        if (start[s] == start[s + 1]) continue;
        int64_t used = position[start[s + 1] - 1] / kPageTokens + 1;
        if (used > width)
            page_table.fail("has " + std::to_string(width) + " columns, but a sequence needs " + std::to_string(used) +
                            " pages");
        const int32_t* row = page_table.as<const int32_t>() + s * width;
        for (int64_t i = 0; i < used; ++i)
            if (row[i] < 0 || row[i] >= pages)
                page_table.fail("names page " + std::to_string(row[i]) + "; there are " + std::to_string(pages));
    }
}

void attention(Engine& engine, nb::handle q_THE, nb::handle positions_T, nb::handle query_starts_S1,
               nb::handle page_table_SP, nb::handle k_PGE16, nb::handle v_PG16E, float scale, int64_t window,
               nb::handle out_any) {
    Cache kv = cache(k_PGE16, v_PG16E);
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
    AttentionArgs args{q.as<const float>(),
                       heads,
                       kv.kv_heads,
                       kv.head_dim,
                       kv.k.raw(),
                       kv.v.raw(),
                       kv.k.dtype(),
                       nullptr,
                       positions.as<const int32_t>(),
                       page_table.as<const int32_t>(),
                       page_table.size(1),
                       scale,
                       window,
                       1,
                       out.as<float>()};
    Working working;
    engine.attention(args, starts.as<const int32_t>(), starts.size(0) - 1);
}

void sample(Engine& engine, nb::handle logits_RV, nb::handle temperature_R, nb::handle top_k_R, nb::handle top_p_R,
            nb::handle min_p_R, nb::handle seed_R, nb::handle position_R, nb::handle out_R) {
    View logits = floats(logits_RV, "logits_RV", {kAny, kAny});
    int64_t rows = logits.size(0), vocab = logits.size(1);
    View temperature = floats(temperature_R, "temperature_R", {rows}), top_p = floats(top_p_R, "top_p_R", {rows}),
         min_p = floats(min_p_R, "min_p_R", {rows});
    View top_k = ints(top_k_R, "top_k_R", {rows});
    View seed(seed_R, "seed_R"), position(position_R, "position_R");
    seed.type({Type::u64}).shape({rows}).contiguous();
    position.type({Type::i64}).shape({rows}).contiguous();
    View out = ints(out_R, "out_R", {rows});
    std::vector<RowSampling> how;
    for (int64_t r = 0; r < rows; ++r)
        how.push_back({temperature.as<float>()[r], top_k.as<int32_t>()[r], top_p.as<float>()[r], min_p.as<float>()[r],
                       seed.as<uint64_t>()[r], position.as<int64_t>()[r]});
    Working working;
    engine.sample(logits.as<const float>(), rows, vocab, how.data(), out.as<int32_t>());
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
    m.def("available_isas", &isas);
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
        .def("rope_kv_write", &rope_kv_write)
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
