// The same as main.c through engine.hpp.
#include <engine.hpp>

#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char **argv) try {
    if (argc != 2) return 2;
    try {
        engine::Model missing("/no/such/model");
        return 1;
    } catch (const engine::Error &error) {
        if (error.status() != ENGINE_ERR_NOT_FOUND || std::string(error.what()).find("/no/such/model") == std::string::npos) throw;
    }
    const engine::Model model(argv[1]);
    const std::vector<std::uint32_t> tokens = model.tokenize("Four score", false);
    engine::Cache cache(model);
    const std::vector<float> logits = cache.step(tokens);
    std::cout << "engine " << engine_version() << ": " << cache.len() << " tokens, first logit " << logits.at(0) << '\n';
    return cache.len() == tokens.size() ? 0 : 1;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
