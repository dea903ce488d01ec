// Everything in llava.hpp.
#include <llava.hpp>

#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::cerr << __FILE__ << ":" << __LINE__ << ": " << #condition << '\n';                                    \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

template <class F>
static void throws(llava_status status, F &&f) {
    try {
        f();
    } catch (const llava::Error &e) {
        CHECK(e.status() == status && std::strlen(e.what()) > 0);
        return;
    }
    CHECK(!"thrown");
}

static std::string contents(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    CHECK(file);
    return {std::istreambuf_iterator<char>(file), {}};
}

static_assert(!std::is_copy_constructible_v<llava::Model> && std::is_nothrow_move_constructible_v<llava::Session>);

// wrapper LM MMPROJ IMAGE SCRATCH
int main(int argc, char **argv) {
    CHECK(argc == 5);
    const std::string lm = argv[1], mmproj = argv[2], picture = argv[3], scratch = argv[4];

    // Models.
    int steps = 0;
    llava::ModelOptions options;
    options.mmproj = mmproj;
    options.threads = 2;
    options.context = 1024;
    options.on_progress = [&](const llava::Progress &p) { return p.stage == LLAVA_STAGE_LOAD && ++steps > 0; };
    llava::Model model(lm, options);
    CHECK(steps > 1 && model.info().context == 1024 && model.info().threads <= 2);
    throws(LLAVA_STATUS_IO, [] { llava::Model("/nowhere/at/all"); });
    options.on_progress = [](const llava::Progress &) { return false; };
    throws(LLAVA_STATUS_CANCELLED, [&] { llava::Model(lm, options); });
    const std::string lm_bytes = contents(lm), mmproj_bytes = contents(mmproj);
    llava::Model copy =
        llava::Model::from_memory(lm_bytes.data(), lm_bytes.size(), mmproj_bytes.data(), mmproj_bytes.size());
    CHECK(std::string(copy.info().name) == "<memory>");

    // Images.
    llava::Image image = llava::Image::open(picture);
    const std::string bytes = contents(picture);
    CHECK(llava::Image::decode(bytes.data(), bytes.size()).width() == image.width());
    std::vector<unsigned char> pixels(6 * 4 * 4, 128);
    llava::Image grey = llava::Image::from_pixels(pixels.data(), pixels.size(), 6, 4, 24, LLAVA_PIXEL_FORMAT_BGRA);
    CHECK(grey.width() == 6 && grey.height() == 4);
    throws(LLAVA_STATUS_INVALID_IMAGE, [] { llava::Image::decode("x", 1); });

    // Sessions and answers.
    llava::Generation g;
    g.max_tokens = 8;
    g.logprobs = 2;
    llava::Session session(model, g);
    std::string streamed;
    llava::Answer answer = session.ask("What?", image, [&](std::string_view piece) { streamed += piece; });
    CHECK(answer.text() == streamed && answer.token_ids().size() == answer->n_tokens && answer->n_tokens == 8);
    CHECK(answer->n_top == 2 && answer->logprobs[0].logprob == answer->top_logprobs[0].logprob);
    CHECK(answer.finish_reason() == LLAVA_FINISH_REASON_LENGTH);
    CHECK(answer->image_tokens == model.image_tokens(image.width(), image.height()));
    CHECK(copy.describe(image).text().size() > 0);
    std::size_t past = session.position();
    CHECK(past > 0);
    llava::Session moved = std::move(session);
    llava::Session fork = moved.fork();
    CHECK(moved.ask("And?").text() == fork.ask("And?", {}, [](std::string_view) { return true; }).text());
    CHECK(moved.ask("Stop.", {}, [](std::string_view) { return false; }).finish_reason() ==
          LLAVA_FINISH_REASON_CANCELLED);
    try {
        moved.ask("Throw.", {image, grey}, [](std::string_view) { throw 7; });
        CHECK(!"thrown");
    } catch (int seven) {
        CHECK(seven == 7);
    }
    moved.reset();
    CHECK(moved.position() == 0);
    moved.set_system("Be brief.");
    moved.set_template("plain");
    g.stop = {"a", "e", "i", "o", "u"};
    moved.set_generation(g);
    CHECK(moved.ask("What?", std::vector<llava::Image>{}).text().find('e') == std::string::npos);
    moved.set_progress([](const llava::Progress &) -> bool { throw std::runtime_error("from progress"); });
    llava::Session again = std::move(moved);
    try {
        again.ask("What?", image);
        CHECK(!"thrown");
    } catch (const std::runtime_error &e) {
        CHECK(std::string(e.what()) == "from progress");
    }
    again.set_progress({});
    again.ask("What?", image);
    auto scores = fork.score("Is it?", image, {"yes", "no"});
    CHECK(scores.size() == 2 && scores[0].logprob < 0 && scores[0].tokens > 0);

    // Cancelling from another thread.
    g = {};
    g.max_tokens = SIZE_MAX;
    g.temperature = 1;
    g.seed = 1;
    llava::Session endless(model, g);
    std::thread thread;
    llava::Answer cut = endless.ask("What?", image, [&](std::string_view) {
        if (!thread.joinable()) {
            thread = std::thread([&] { endless.cancel(); });
        }
    });
    thread.join();
    CHECK(cut.finish_reason() == LLAVA_FINISH_REASON_CANCELLED);

    // Embeddings.
    int layers = 0;
    llava::Embedding embedding = model.encode(image, [&](const llava::Progress &) { return ++layers > 0; });
    CHECK(layers > 1 && embedding.tokens() == answer->image_tokens && embedding.width() == model.info().d_model);
    embedding.save(scratch + "/embedding.npy");
    llava::Embedding loaded = llava::Embedding::load(scratch + "/embedding.npy");
    CHECK(std::memcmp(loaded.values(), embedding.values(), 4 * embedding.tokens() * embedding.width()) == 0);
    llava::Embedding same(loaded.values(), loaded.tokens(), loaded.width());
    g = {};
    g.max_tokens = 8;
    llava::Session attached(model, g), prefilled(model, g);
    attached.attach(same);
    attached.detach();
    attached.attach(same);
    prefilled.prefill(image);
    CHECK(attached.ask("What?").text() == answer.text() && prefilled.ask("What?").text() == answer.text());
    throws(LLAVA_STATUS_CANCELLED, [&] { model.encode(image, [](const llava::Progress &) { return false; }); });

    // Tokens.
    auto ids = model.tokenize("a b");
    CHECK(model.detokenize(ids) == "a b" || model.detokenize(ids) == " a b");
    std::vector<llava_input> inputs{llava::token(embedding)};
    for (auto id : ids) {
        inputs.push_back(llava::token(id));
    }
    auto logits = model.logits(inputs, 2);
    CHECK(logits.size() == 2 * model.info().vocab_size);
    llava::Answer generated = model.generate(inputs, g);
    std::string pieces;
    int prompt_steps = 0;
    llava::Answer again_generated = model.generate(
        inputs, g,
        [&](std::string_view piece) {
            pieces += piece;
            return true;
        },
        [&](const llava::Progress &p) { return p.stage == LLAVA_STAGE_PREFILL && ++prompt_steps > 0; });
    CHECK(pieces == generated.text() && again_generated.text() == pieces && prompt_steps > 1);
    CHECK(model.generate(inputs, g, [](std::string_view) { return false; }).finish_reason() ==
          LLAVA_FINISH_REASON_CANCELLED);
    throws(LLAVA_STATUS_CANCELLED, [&] { model.generate(inputs, g, {}, [](const llava::Progress &) { return false; }); });
    throws(LLAVA_STATUS_CANCELLED, [&] { model.logits(inputs, 1, [](const llava::Progress &) { return false; }); });
    std::size_t best = 0;
    for (std::size_t i = 0; i < model.info().vocab_size; i++) {
        best = logits[model.info().vocab_size + i] > logits[model.info().vocab_size + best] ? i : best;
    }
    CHECK(generated->n_tokens == 0 || generated.token_ids()[0] == best);

    // Batches.
    llava::Batch batch(model);
    llava::Session one(model, g), two(model, g), empty(model, g);
    batch.push(one, "What?", image);
    batch.push(empty, "");
    batch.push(two, "What?", {image, grey});
    auto answers = batch.run();
    CHECK(answers.size() == 3 && answers[0].text() == answer.text());
    CHECK(answers[1]->status == LLAVA_STATUS_INVALID_ARGUMENT && std::strlen(answers[1]->error) > 0);
    CHECK(answers[2].text() == llava::Session(model, g).ask("What?", {image, grey}).text());
    throws(LLAVA_STATUS_INVALID_ARGUMENT, [&] { batch.run(); });
    one.ask("And?");
    return 0;
}
