// A conversation about an image, with progress and Ctrl-C, which ends the answer and not the program.
//
//     cargo xtask install --prefix "$HOME/.local"
//     c++ -std=c++17 examples/chat.cpp $(pkg-config --cflags --libs llava) -o chat
//     ./chat models/llava-v1.5-7b cat.jpg

#include <llava.hpp>

#include <csignal>
#include <iostream>
#include <string>

static volatile std::sig_atomic_t interrupted = 0;

// The progress of what takes long, on a line of its own.
static bool show(const llava::Progress &p) {
    static const char *const stages[] = {"", "loading", "looking", "reading"};
    std::cerr << '\r' << stages[p.stage] << ' ' << 100 * p.done / p.total << " % ";
    if (p.done == p.total) {
        std::cerr << "\r               \r";
    }
    return !interrupted;
}

int main(int argc, char **argv) try {
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " MODEL IMAGE\n";
        return 2;
    }
    std::signal(SIGINT, [](int) { interrupted = 1; });
    llava::ModelOptions options;
    options.on_progress = show;
    const llava::Model model(argv[1], options);
    const llava::Image image = llava::Image::open(argv[2]);

    llava::Session session(model);
    session.set_progress(show);
    bool first = true;
    for (std::string question; std::cout << "> " << std::flush, std::getline(std::cin, question);) {
        if (question.empty()) {
            continue;
        }
        interrupted = 0;
        try {
            // The image belongs to the first question; it stays in the conversation.
            session.ask(question, first ? llava::Images(image) : llava::Images(), [](std::string_view piece) {
                std::cout << piece << std::flush;
                return !interrupted;
            });
            first = false;
            std::cout << '\n';
        } catch (const llava::Error &e) {
            // The conversation is as it was before the question.
            std::cerr << '\n' << e.what() << '\n';
        }
    }
    std::cout << '\n';
    return 0;
} catch (const llava::Error &e) {
    std::cerr << e.what() << '\n';
    return 1;
}
