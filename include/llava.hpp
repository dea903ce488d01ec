// llava for C++17: owning classes over llava.h, which is the manual for what each call does.
//
//     llava::Model model("models/llava-v1.5-7b");
//     llava::Image cat = llava::Image::open("cat.jpg");
//     std::cout << model.describe(cat).text() << '\n';
//
//     llava::Session session(model);
//     session.ask("What is on the mat?", cat, [](std::string_view piece) { std::cout << piece << std::flush; });
//
// What fails throws llava::Error. Exceptions rather than results, because constructors can fail and nearly every call can;
// programs built without exceptions use llava.h. Objects can be moved, not copied, and freed in any order. An exception
// that leaves a callback ends the call and comes out of it.
//
// Header only; link what llava.h needs.

#ifndef LLAVA_HPP
#define LLAVA_HPP

#include "llava.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace llava {

/// What a call reports when it fails: what() is the sentence, status() the kind.
class Error : public std::runtime_error {
public:
    Error(llava_status status, const std::string &message) : std::runtime_error(message), status_(status) {}
    llava_status status() const noexcept { return status_; }

private:
    llava_status status_;
};

namespace detail {

inline void check(llava_status status) {
    if (status != LLAVA_STATUS_OK) {
        throw Error(status, llava_error_message());
    }
}

struct Free {
    void operator()(llava_model *p) const noexcept { llava_model_free(p); }
    void operator()(llava_image *p) const noexcept { llava_image_free(p); }
    void operator()(llava_embedding *p) const noexcept { llava_embedding_free(p); }
    void operator()(llava_session *p) const noexcept { llava_session_free(p); }
    void operator()(llava_batch *p) const noexcept { llava_batch_free(p); }
    void operator()(llava_answer *p) const noexcept { llava_answer_free(p); }
};

template <class T>
using Handle = std::unique_ptr<T, Free>;

// The handle that `make(&pointer)` gives.
template <class T, class Make>
Handle<T> make(Make &&make) {
    T *pointer = nullptr;
    check(make(&pointer));
    return Handle<T>(pointer);
}

// Calls `f`; an exception from it is kept, and ends what calls this.
template <class F, class... Args>
bool guarded(F &f, std::exception_ptr &thrown, Args... args) noexcept {
    try {
        if constexpr (std::is_void_v<std::invoke_result_t<F &, Args...>>) {
            f(args...);
            return true;
        } else {
            return f(args...);
        }
    } catch (...) {
        thrown = std::current_exception();
        return false;
    }
}

inline void rethrow(const std::exception_ptr &thrown) {
    if (thrown) {
        std::rethrow_exception(thrown);
    }
}

} // namespace detail

/// How far something is: `done` of `total` steps of a llava_stage.
struct Progress {
    llava_stage stage;
    std::size_t done;
    std::size_t total;
};

/// Hears of progress; false cancels.
using OnProgress = std::function<bool(const Progress &)>;

/// Receives a piece of an answer; false ends it.
using OnText = std::function<bool(std::string_view)>;

namespace detail {

// A progress callback and what it threw.
struct Watcher {
    OnProgress f;
    std::exception_ptr thrown;

    static bool call(std::int32_t stage, std::size_t done, std::size_t total, void *self) noexcept {
        auto &w = *static_cast<Watcher *>(self);
        return guarded(w.f, w.thrown, Progress{static_cast<llava_stage>(stage), done, total});
    }
    llava_progress_callback callback() const { return f ? &Watcher::call : nullptr; }
    void check(llava_status status) {
        rethrow(std::exchange(thrown, nullptr));
        detail::check(status);
    }
};

} // namespace detail

/// How a model is opened; see llava_model_options.
struct ModelOptions {
    std::string mmproj;
    std::size_t threads = 0;
    std::size_t context = 0;
    llava_kv_type kv_type = LLAVA_KV_TYPE_DEFAULT;
    bool exact = false;
    std::string template_name;
    std::string kernels;
    OnProgress on_progress;
};

/// How answers are made; see llava_generation_options.
struct Generation {
    std::size_t max_tokens = 512;
    float repeat_penalty = 1;
    float temperature = 0;
    std::size_t top_k = 0;
    float top_p = 1;
    float min_p = 0;
    std::optional<std::uint64_t> seed;
    /// Log-probabilities of the tokens, and of this many most likely ones at each place.
    std::optional<std::size_t> logprobs;
    std::vector<llava_logit_bias> logit_bias;
    std::vector<std::string> stop;
    std::vector<std::uint32_t> stop_tokens;
};

namespace detail {

// A Generation for C, as long as that lives.
class COptions {
public:
    explicit COptions(const Generation &g) {
        for (const std::string &s : g.stop) {
            stop_.push_back({s.data(), s.size()});
        }
        c_.struct_size = sizeof c_;
        c_.max_tokens = g.max_tokens;
        c_.repeat_penalty = g.repeat_penalty;
        c_.temperature = g.temperature;
        c_.top_k = g.top_k;
        c_.top_p = g.top_p;
        c_.min_p = g.min_p;
        c_.seed = g.seed.value_or(0);
        c_.has_seed = g.seed.has_value();
        c_.logprobs = g.logprobs.has_value();
        c_.top_logprobs = g.logprobs.value_or(0);
        c_.logit_bias = g.logit_bias.data();
        c_.n_logit_bias = g.logit_bias.size();
        c_.stop = stop_.data();
        c_.n_stop = stop_.size();
        c_.stop_tokens = g.stop_tokens.data();
        c_.n_stop_tokens = g.stop_tokens.size();
    }
    COptions(const COptions &) = delete;
    COptions &operator=(const COptions &) = delete;
    const llava_generation_options *get() const { return &c_; }

private:
    std::vector<llava_text> stop_;
    llava_generation_options c_{};
};

} // namespace detail

/// A decoded picture.
class Image {
public:
    static Image open(const std::string &path) {
        return make([&](llava_image **out) { return llava_image_open(path.c_str(), out); });
    }
    static Image decode(const void *data, std::size_t size) {
        return make([&](llava_image **out) { return llava_image_decode(data, size, out); });
    }
    /// `size` bytes of pixels; rows begin `stride` bytes apart.
    static Image from_pixels(const void *pixels, std::size_t size, std::uint32_t width, std::uint32_t height,
                             std::size_t stride, llava_pixel_format format) {
        return make([&](llava_image **out) {
            return llava_image_from_pixels(pixels, size, width, height, stride, format, out);
        });
    }
    std::uint32_t width() const { return size().first; }
    std::uint32_t height() const { return size().second; }
    const llava_image *get() const noexcept { return handle_.get(); }

private:
    explicit Image(detail::Handle<llava_image> handle) : handle_(std::move(handle)) {}
    template <class Make>
    static Image make(Make &&make) {
        return Image(detail::make<llava_image>(make));
    }
    std::pair<std::uint32_t, std::uint32_t> size() const {
        std::pair<std::uint32_t, std::uint32_t> size;
        detail::check(llava_image_size(get(), &size.first, &size.second));
        return size;
    }
    detail::Handle<llava_image> handle_;
};

/// The images of a question: none, one, `{a, b}`, or a vector.
class Images {
public:
    Images() = default;
    Images(const Image &image) : handles_{image.get()} {}
    Images(std::initializer_list<std::reference_wrapper<const Image>> images) {
        for (const Image &image : images) {
            handles_.push_back(image.get());
        }
    }
    Images(const std::vector<Image> &images) {
        for (const Image &image : images) {
            handles_.push_back(image.get());
        }
    }
    const llava_image *const *data() const noexcept { return handles_.data(); }
    std::size_t size() const noexcept { return handles_.size(); }

private:
    std::vector<const llava_image *> handles_;
};

/// An image as the language model sees it: `tokens()` rows of `width()` floats.
class Embedding {
public:
    Embedding(const float *values, std::size_t tokens, std::size_t width)
        : Embedding(detail::make<llava_embedding>(
              [&](llava_embedding **out) { return llava_embedding_new(values, tokens, width, out); })) {}
    static Embedding load(const std::string &path) {
        return Embedding(detail::make<llava_embedding>(
            [&](llava_embedding **out) { return llava_embedding_load(path.c_str(), out); }));
    }
    void save(const std::string &path) const { detail::check(llava_embedding_save(get(), path.c_str())); }
    /// Valid as long as this lives.
    const float *values() const noexcept { return values_; }
    std::size_t tokens() const noexcept { return tokens_; }
    std::size_t width() const noexcept { return width_; }
    const llava_embedding *get() const noexcept { return handle_.get(); }

private:
    friend class Model;
    explicit Embedding(detail::Handle<llava_embedding> handle) : handle_(std::move(handle)) {
        detail::check(llava_embedding_values(get(), &values_, &tokens_, &width_));
    }
    detail::Handle<llava_embedding> handle_;
    const float *values_ = nullptr;
    std::size_t tokens_ = 0;
    std::size_t width_ = 0;
};

/// An answer. `answer->prompt_tokens` and the like are llava_answer's fields.
class Answer {
public:
    explicit Answer(llava_answer *owned) noexcept : handle_(owned) {}
    std::string_view text() const noexcept { return {handle_->text, handle_->text_size}; }
    std::vector<std::uint32_t> token_ids() const {
        return {handle_->token_ids, handle_->token_ids + handle_->n_tokens};
    }
    llava_finish_reason finish_reason() const noexcept {
        return static_cast<llava_finish_reason>(handle_->finish_reason);
    }
    const llava_answer *operator->() const noexcept { return handle_.get(); }

private:
    detail::Handle<llava_answer> handle_;
};

/// One piece of a prompt that is given as tokens.
inline llava_input token(std::uint32_t id) noexcept { return {nullptr, id}; }
inline llava_input token(const Embedding &image) noexcept { return {image.get(), 0}; }

/// A loaded LLaVA. Any number of threads may use it at once.
class Model {
public:
    /// The model at `path`: a GGUF file, or a folder with a pair.
    explicit Model(const std::string &path, const ModelOptions &options = {})
        : Model(options, [&](const llava_model_options *o, llava_model **out) {
              return llava_model_open(path.c_str(), o, out);
          }) {}
    /// The model that the environment variable LLAVA_MODEL names.
    static Model load(const ModelOptions &options = {}) {
        return Model(options, [](const llava_model_options *o, llava_model **out) {
            return llava_model_open(nullptr, o, out);
        });
    }
    /// A model from the contents of its files.
    static Model from_memory(const void *lm, std::size_t lm_size, const void *mmproj, std::size_t mmproj_size,
                             const ModelOptions &options = {}) {
        return Model(options, [&](const llava_model_options *o, llava_model **out) {
            return llava_model_open_memory(lm, lm_size, mmproj, mmproj_size, o, out);
        });
    }
    /// Its texts are valid as long as this lives.
    llava_model_info info() const {
        llava_model_info info{};
        detail::check(llava_model_get_info(get(), &info, sizeof info));
        return info;
    }
    std::size_t image_tokens(std::uint32_t width, std::uint32_t height) const {
        std::size_t n = 0;
        detail::check(llava_model_image_tokens(get(), width, height, &n));
        return n;
    }
    Answer describe(const Image &image) const {
        llava_answer *answer = nullptr;
        detail::check(llava_model_describe(get(), image.get(), &answer));
        return Answer(answer);
    }
    Embedding encode(const Image &image, const OnProgress &on_progress = {}) const {
        detail::Watcher w{on_progress, nullptr};
        llava_embedding *out = nullptr;
        w.check(llava_model_encode(get(), image.get(), w.callback(), &w, &out));
        return Embedding(detail::Handle<llava_embedding>(out));
    }
    std::vector<std::uint32_t> tokenize(std::string_view text, bool special = false) const {
        std::size_t n = 0;
        detail::check(llava_model_tokenize(get(), text.data(), text.size(), special, nullptr, 0, &n));
        std::vector<std::uint32_t> ids(n);
        detail::check(llava_model_tokenize(get(), text.data(), text.size(), special, ids.data(), n, &n));
        return ids;
    }
    std::string detokenize(const std::vector<std::uint32_t> &ids) const {
        std::size_t n = 0;
        detail::check(llava_model_detokenize(get(), ids.data(), ids.size(), nullptr, 0, &n));
        std::string text(n, '\0');
        detail::check(llava_model_detokenize(get(), ids.data(), ids.size(), text.data(), n, &n));
        return text;
    }
    /// `n` rows of info().vocab_size.
    std::vector<float> logits(const std::vector<llava_input> &inputs, std::size_t n = 1,
                              const OnProgress &on_progress = {}) const {
        detail::Watcher w{on_progress, nullptr};
        std::vector<float> logits(n * info().vocab_size);
        w.check(llava_model_logits(get(), inputs.data(), inputs.size(), n, w.callback(), &w, logits.data(),
                                   logits.size()));
        return logits;
    }
    Answer generate(const std::vector<llava_input> &inputs, const Generation &generation = {},
                    const OnText &on_text = {}, const OnProgress &on_progress = {}) const {
        struct Call {
            const OnText &text;
            const OnProgress &progress;
            std::exception_ptr thrown;
        } call{on_text, on_progress, nullptr};
        llava_text_callback text = [](const char *piece, std::size_t size, void *data) {
            auto &call = *static_cast<Call *>(data);
            return detail::guarded(call.text, call.thrown, std::string_view(piece, size));
        };
        llava_progress_callback progress = [](std::int32_t stage, std::size_t done, std::size_t total, void *data) {
            auto &call = *static_cast<Call *>(data);
            return detail::guarded(call.progress, call.thrown, Progress{static_cast<llava_stage>(stage), done, total});
        };
        llava_answer *out = nullptr;
        detail::COptions o(generation);
        llava_status status =
            llava_model_generate(get(), inputs.data(), inputs.size(), o.get(), on_text ? text : nullptr,
                                 on_progress ? progress : nullptr, &call, &out);
        detail::Handle<llava_answer> answer(out);
        detail::rethrow(call.thrown);
        detail::check(status);
        return Answer(answer.release());
    }
    const llava_model *get() const noexcept { return handle_.get(); }

private:
    template <class Make>
    Model(const ModelOptions &options, Make &&make) {
        if (llava_abi_version() != LLAVA_ABI_VERSION) {
            throw Error(LLAVA_STATUS_UNSUPPORTED, std::string("the header and the library, version ") +
                                                      llava_version() + ", do not belong together");
        }
        auto text = [](const std::string &s) { return s.empty() ? nullptr : s.c_str(); };
        detail::Watcher w{options.on_progress, nullptr};
        llava_model_options o{};
        o.struct_size = sizeof o;
        o.mmproj = text(options.mmproj);
        o.threads = options.threads;
        o.context = options.context;
        o.kv_type = options.kv_type;
        o.exact = options.exact;
        o.template_name = text(options.template_name);
        o.kernels = text(options.kernels);
        o.on_progress = w.callback();
        o.progress_data = &w;
        llava_model *model = nullptr;
        w.check(make(&o, &model));
        handle_.reset(model);
    }
    detail::Handle<llava_model> handle_;
};

/// A conversation. One call at a time; cancel() from any thread.
class Session {
public:
    explicit Session(const Model &model, const Generation &generation = {})
        : Session(detail::make<llava_session>([&](llava_session **out) {
              return llava_session_new(model.get(), detail::COptions(generation).get(), out);
          })) {}
    void set_generation(const Generation &generation) {
        detail::check(llava_session_set_generation(get(), detail::COptions(generation).get()));
    }
    void set_system(std::string_view text) {
        detail::check(llava_session_set_system(get(), text.data(), text.size()));
    }
    void set_template(const std::string &name) { detail::check(llava_session_set_template(get(), name.c_str())); }
    void set_progress(OnProgress on_progress) {
        auto watcher = std::make_unique<detail::Watcher>(detail::Watcher{std::move(on_progress), nullptr});
        detail::check(llava_session_set_progress(get(), watcher->callback(), watcher.get()));
        watcher_ = std::move(watcher);
    }
    void cancel() const noexcept { llava_session_cancel(get()); }
    void reset() { detail::check(llava_session_reset(get())); }
    Session fork() const {
        return Session(detail::make<llava_session>(
            [&](llava_session **out) { return llava_session_fork(get(), out); }));
    }
    void attach(const Embedding &embedding) { detail::check(llava_session_attach(get(), embedding.get())); }
    void detach() { detail::check(llava_session_detach(get())); }
    void prefill(const Images &images) { check(llava_session_prefill(get(), images.data(), images.size())); }
    Answer ask(std::string_view text, const Images &images = {}) {
        return ask(text, images, [](std::string_view) {});
    }
    /// `on_text` receives the answer piece by piece; if it returns a bool, false ends the answer.
    template <class OnText>
    Answer ask(std::string_view text, const Images &images, OnText &&on_text) {
        struct Call {
            std::remove_reference_t<OnText> &f;
            std::exception_ptr thrown;
        } call{on_text, nullptr};
        llava_text_callback callback = [](const char *piece, std::size_t size, void *data) {
            auto &call = *static_cast<Call *>(data);
            return detail::guarded(call.f, call.thrown, std::string_view(piece, size));
        };
        llava_answer *out = nullptr;
        llava_status status = llava_session_ask(get(), text.data(), text.size(), images.data(), images.size(),
                                                callback, &call, &out);
        detail::Handle<llava_answer> answer(out);
        detail::rethrow(call.thrown);
        check(status);
        return Answer(answer.release());
    }
    /// The log-likelihood of each choice as the answer.
    std::vector<llava_score> score(std::string_view text, const Images &images,
                                   const std::vector<std::string> &choices) {
        std::vector<llava_text> texts;
        for (const std::string &c : choices) {
            texts.push_back({c.data(), c.size()});
        }
        std::vector<llava_score> scores(choices.size());
        check(llava_session_score(get(), text.data(), text.size(), images.data(), images.size(), texts.data(),
                                  texts.size(), scores.data()));
        return scores;
    }
    std::size_t position() const {
        std::size_t n = 0;
        detail::check(llava_session_position(get(), &n));
        return n;
    }
    llava_session *get() const noexcept { return handle_.get(); }

private:
    explicit Session(detail::Handle<llava_session> handle) : handle_(std::move(handle)) {}
    // What the progress callback threw comes first.
    void check(llava_status status) {
        if (watcher_) {
            watcher_->check(status);
        } else {
            detail::check(status);
        }
    }
    std::unique_ptr<detail::Watcher> watcher_; // outlives the handle that names it
    detail::Handle<llava_session> handle_;
};

/// Questions that are answered together.
class Batch {
public:
    explicit Batch(const Model &model)
        : handle_(detail::make<llava_batch>([&](llava_batch **out) { return llava_batch_new(model.get(), out); })) {}
    /// The session belongs to the batch until that has run.
    void push(Session &session, std::string_view text, const Images &images = {}) {
        detail::check(llava_batch_push(handle_.get(), session.get(), text.data(), text.size(), images.data(),
                                       images.size()));
        ++n_;
    }
    void cancel() const noexcept { llava_batch_cancel(handle_.get()); }
    /// The answers in the order of the questions. For one that failed, `answer->status` and `answer->error` say why.
    std::vector<Answer> run() {
        std::vector<llava_answer *> raw(n_);
        std::vector<Answer> answers;
        answers.reserve(n_);
        detail::check(llava_batch_run(handle_.get(), raw.data(), raw.size()));
        for (llava_answer *answer : raw) {
            answers.emplace_back(answer);
        }
        return answers;
    }

private:
    detail::Handle<llava_batch> handle_;
    std::size_t n_ = 0;
};

} // namespace llava

#endif // LLAVA_HPP
