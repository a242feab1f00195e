// Batch norm and layer norm of oneDNN behind a C interface, for versions 2.6 to 3.x: everything is allocated before the
// timing, and a call runs any number of executions.
#include <dnnl.hpp>

#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <unordered_map>

using namespace dnnl;

namespace {

std::string last_error;

struct Problem {
  engine device{engine::kind::cpu, 0};
  stream queue{device};
  primitive operation;
  std::unordered_map<int, memory> arguments;
  std::string implementation;

  memory& add(int which, const memory::desc& desc) {
    return arguments.insert_or_assign(which, memory(desc, device)).first->second;
  }
};

enum Kind { ln_forward, ln_backward, bn_forward, bn_backward, bn_inference };

template <class Desc>
void name(Problem& problem, const Desc& desc) {
  problem.implementation = desc.impl_info_str();
}

void add_parameters(Problem& p, memory::dim channels, bool backward) {
  const memory::desc vector({channels}, memory::data_type::f32, memory::format_tag::x);
  p.add(DNNL_ARG_SCALE, vector);
  p.add(DNNL_ARG_SHIFT, vector);
  if (!backward) return;
  p.add(DNNL_ARG_DIFF_SCALE, vector);
  p.add(DNNL_ARG_DIFF_SHIFT, vector);
}

void build(Problem& p, Kind kind, memory::dim n, memory::dim c, memory::dim inner, bool channels_last, float eps) {
  using tag = memory::format_tag;
  const auto f32 = memory::data_type::f32;
  const bool is_layer = kind == ln_forward || kind == ln_backward, backward = kind == ln_backward || kind == bn_backward;
  const memory::dims dims = is_layer ? memory::dims{n, c} : memory::dims{n, c, inner, 1};
  const memory::desc data(dims, f32, is_layer ? tag::ab : channels_last ? tag::acdb : tag::abcd);
  const auto scale_shift = normalization_flags::use_scale | normalization_flags::use_shift;
  const auto global = normalization_flags::use_global_stats;
  const auto training = prop_kind::forward_training, inference = prop_kind::forward_inference;
  memory::desc statistics;
#if DNNL_VERSION_MAJOR >= 3
  if (is_layer) {
    const memory::desc rows({n}, f32, tag::a);
    const layer_normalization_forward::primitive_desc forward(p.device, backward ? training : inference, data, data, rows, eps,
                                                              scale_shift);
    statistics = rows;
    if (backward) {
      const layer_normalization_backward::primitive_desc desc(p.device, prop_kind::backward, data, data, data, rows, eps,
                                                              scale_shift, forward);
      name(p, desc);
      p.operation = layer_normalization_backward(desc);
    } else {
      name(p, forward);
      p.operation = layer_normalization_forward(forward);
    }
  } else {
    const batch_normalization_forward::primitive_desc forward(p.device, kind == bn_inference ? inference : training, data,
                                                              data, eps,
                                                              kind == bn_inference ? scale_shift | global : scale_shift);
    statistics = forward.mean_desc();
    if (backward) {
      const batch_normalization_backward::primitive_desc desc(p.device, prop_kind::backward, data, data, data, eps,
                                                              scale_shift, forward);
      name(p, desc);
      p.operation = batch_normalization_backward(desc);
    } else {
      name(p, forward);
      p.operation = batch_normalization_forward(forward);
    }
  }
#else
  if (is_layer) {
    const memory::desc rows({n}, f32, tag::a);
    const layer_normalization_forward::primitive_desc forward(
        layer_normalization_forward::desc(backward ? training : inference, data, rows, eps, scale_shift), p.device);
    statistics = rows;
    if (backward) {
      const layer_normalization_backward::primitive_desc desc(
          layer_normalization_backward::desc(prop_kind::backward, data, data, rows, eps, scale_shift), p.device, forward);
      name(p, desc);
      p.operation = layer_normalization_backward(desc);
    } else {
      name(p, forward);
      p.operation = layer_normalization_forward(forward);
    }
  } else {
    const batch_normalization_forward::primitive_desc forward(
        batch_normalization_forward::desc(kind == bn_inference ? inference : training, data, eps,
                                          kind == bn_inference ? scale_shift | global : scale_shift),
        p.device);
    statistics = forward.mean_desc();
    if (backward) {
      const batch_normalization_backward::primitive_desc desc(
          batch_normalization_backward::desc(prop_kind::backward, data, data, eps, scale_shift), p.device, forward);
      name(p, desc);
      p.operation = batch_normalization_backward(desc);
    } else {
      name(p, forward);
      p.operation = batch_normalization_forward(forward);
    }
  }
#endif
  p.add(DNNL_ARG_SRC, data);
  if (kind != ln_forward) {
    p.add(DNNL_ARG_MEAN, statistics);
    p.add(DNNL_ARG_VARIANCE, statistics);
  }
  if (backward) {
    p.add(DNNL_ARG_DIFF_DST, data);
    p.add(DNNL_ARG_DIFF_SRC, data);
  } else {
    p.add(DNNL_ARG_DST, data);
  }
  add_parameters(p, c, backward);
}

template <class F>
int guarded(F&& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

void copy(memory& array, void* host, bool in) {
  void* mapped = array.map_data<void>();
  const std::size_t bytes = array.get_desc().get_size();
  in ? std::memcpy(mapped, host, bytes) : std::memcpy(host, mapped, bytes);
  array.unmap_data(mapped);
}

}  // namespace

extern "C" {

const char* shim_error() { return last_error.c_str(); }

const char* shim_version() {
  static const std::string text = [] {
    const dnnl_version_t* v = dnnl_version();
    const char* runtime = v->cpu_runtime == DNNL_RUNTIME_OMP   ? "OpenMP"
                          : v->cpu_runtime == DNNL_RUNTIME_TBB ? "TBB"
                          : v->cpu_runtime == DNNL_RUNTIME_SEQ ? "sequential"
                                                               : "SYCL";
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch) + ", " + runtime;
  }();
  return text.c_str();
}

Problem* shim_new(int kind, std::int64_t n, std::int64_t c, std::int64_t inner, int channels_last, float eps) {
  auto* problem = new Problem;
  if (guarded([&] { build(*problem, static_cast<Kind>(kind), n, c, inner, channels_last != 0, eps); }) == 0)
    return problem;
  delete problem;
  return nullptr;
}

void shim_delete(Problem* problem) { delete problem; }

const char* shim_implementation(Problem* problem) { return problem->implementation.c_str(); }

// which: src, dst, diff_dst, diff_src, mean, variance, scale, shift, diff_scale, diff_shift
static const int numbers[] = {DNNL_ARG_SRC,      DNNL_ARG_DST,   DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_SRC,   DNNL_ARG_MEAN,
                              DNNL_ARG_VARIANCE, DNNL_ARG_SCALE, DNNL_ARG_SHIFT,    DNNL_ARG_DIFF_SCALE, DNNL_ARG_DIFF_SHIFT};

int shim_set(Problem* problem, int which, void* host) {
  return guarded([&] { copy(problem->arguments.at(numbers[which]), host, true); });
}
int shim_get(Problem* problem, int which, void* host) {
  return guarded([&] { copy(problem->arguments.at(numbers[which]), host, false); });
}

int shim_run(Problem* problem, int times) {
  return guarded([&] {
    for (int i = 0; i < times; ++i) {
      problem->operation.execute(problem->queue, problem->arguments);
      problem->queue.wait();
    }
  });
}
}
