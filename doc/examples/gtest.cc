// SPDX-License-Identifier: LGPL-2.1-or-later
// GoogleTest, in two ways: a fixture whose suite has the engine for itself, and a listener that gives each test whose name ends with
// _Exclusive a lock for its time.
//
//   c++ gtest.cc $(pkg-config --cflags --libs flockctl gtest) -o gtest && ./gtest
#include <chrono>
#include <flockctl.hpp>
#include <gtest/gtest.h>
#include <string>

#include "engine.h"

class EngineTest : public ::testing::Test {
protected:
    static void SetUpTestSuite()
    {
        try {
            engine = flockctl::hold("engine", std::chrono::minutes(10));
        } catch (const flockctl::error &error) {
            FAIL() << error.what();
        }
        ASSERT_EQ(engine_start(), 0);
    }
    static void TearDownTestSuite()
    {
        if (!engine)
            return;
        EXPECT_EQ(engine_stop(), 0);
        engine.release();
    }
    static flockctl::hold engine;
};
flockctl::hold EngineTest::engine;

TEST_F(EngineTest, IsOurs)
{
    EXPECT_EQ(flockctl::held("engine"), 2);
}

TEST_F(EngineTest, Works)
{
    EXPECT_TRUE(engine_works());
}

class Exclusive : public ::testing::EmptyTestEventListener {
    void OnTestStart(const ::testing::TestInfo &test) override
    {
        const std::string name = test.name(), suffix = "_Exclusive";
        if (name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0)
            hold = flockctl::hold("ports");
    }
    void OnTestEnd(const ::testing::TestInfo &) override { hold.release(); }
    flockctl::hold hold;
};

TEST(Ports, Opens_Exclusive)
{
    EXPECT_EQ(flockctl::held("ports"), 2);
}

TEST(Ports, Shares)
{
    EXPECT_EQ(flockctl::held("ports"), 0);
}

int main(int argc, char **argv)
{
    ::testing::InitGoogleTest(&argc, argv);
    ::testing::UnitTest::GetInstance()->listeners().Append(new Exclusive);
    return RUN_ALL_TESTS();
}
