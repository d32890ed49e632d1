// Arrays as they come from Python, checked: a type, a shape, indices within limits.
//
// They come in through `__array_struct__`, numpy's documented C description of an array: it
// is cheap, needs no numpy header, and knows ml_dtypes' bfloat16 (as two opaque bytes).
#pragma once

#include <nanobind/nanobind.h>

#include <stdexcept>
#include <string>

#include "kernels.h"
#include "parallel.h"
#include "sampling.h"

namespace hexad {

namespace nb = nanobind;

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

[[noreturn]] inline void refuse(const std::string& why) { throw Refused(why); }

enum class Type { f32, bf16, f16, u8, i32, i64, u64, sampling, other };

inline const char* type_name(Type type) {
    switch (type) {
        case Type::f32: return "float32";
        case Type::bf16: return "bfloat16";
        case Type::f16: return "float16";
        case Type::u8: return "uint8";
        case Type::i32: return "int32";
        case Type::i64: return "int64";
        case Type::u64: return "uint64";
        case Type::sampling: return "SAMPLING";
        default: return "an unsupported type";
    }
}

inline Type type_of(char kind, int itemsize) {
    if (kind == 'f' && itemsize == 4) return Type::f32;
    if (kind == 'f' && itemsize == 2) return Type::f16;
    if (kind == 'V' && itemsize == 2) return Type::bf16;
    if (kind == 'u' && itemsize == 1) return Type::u8;
    if (kind == 'i' && itemsize == 4) return Type::i32;
    if (kind == 'i' && itemsize == 8) return Type::i64;
    if (kind == 'u' && itemsize == 8) return Type::u64;
    if (kind == 'V' && itemsize == int(sizeof(RowSampling))) return Type::sampling;
    return Type::other;
}

// While kernels run: other Python threads go on, and floats behave the same on every thread.
struct Working {
    nb::gil_scoped_release release;
    PlainFloats floats;
};

constexpr int64_t kAny = -1;
constexpr int kMaxDims = 5;

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
    int64_t nbytes() const {
        int64_t bytes = itemsize_;
        for (int i = 0; i < nd_ && i < kMaxDims; ++i) bytes *= shape_[i];
        return bytes;
    }
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
    int64_t shape_[kMaxDims] = {1, 1, 1, 1, 1}, strides_[kMaxDims] = {};
};

inline View floats(nb::handle array, const char* name, std::initializer_list<int64_t> shape) {
    View view(array, name);
    view.type({Type::f32}).shape(shape).contiguous();
    return view;
}

inline View ints(nb::handle array, const char* name, std::initializer_list<int64_t> shape) {
    View view(array, name);
    view.type({Type::i32}).shape(shape).contiguous();
    return view;
}

// The KV cache of one layer.
struct Cache {
    View k, v;
    int64_t pages, kv_heads, head_dim;
};

// Pages as `new_kv` of the native set makes them; the layouts are told at AttentionArgs.
inline Cache cache(nb::handle k_pages, nb::handle v_pages) {
    View k(k_pages, "kv.k_pages"), v(v_pages, "kv.v_pages");
    k.type({Type::f32, Type::bf16}).contiguous().writeable();
    v.type({k.type()}).contiguous().writeable();
    bool pairs = k.type() == Type::bf16;
    if (pairs)
        k.shape({kAny, kAny, kAny, kPageTokens, 2});
    else
        k.shape({kAny, kAny, kAny, kPageTokens});
    int64_t pages = k.size(0), kv_heads = k.size(1), head_dim = k.size(2) * (pairs ? 2 : 1);
    if (pairs)
        v.shape({pages, kv_heads, kPageTokens / 2, head_dim, 2});
    else
        v.shape({pages, kv_heads, kPageTokens, head_dim});
    if (head_dim < 2 || head_dim % 2 || head_dim > kMaxHeadDim)
        k.fail("has a head dimension of " + std::to_string(head_dim) + "; it must be even and at most " +
               std::to_string(kMaxHeadDim));
    return {k, v, pages, kv_heads, head_dim};
}

// Each sequence's rows cover [0, tokens) in order, and each row's keys lie in pages that exist.
inline void check_sequences(const View& starts, const View& positions, const View& page_table, int64_t pages) {
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

}  // namespace hexad
