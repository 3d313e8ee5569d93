class KimiBridge < Formula
  desc "Second opinion from Kimi for coding agents"
  homepage "https://github.com/@OWNER@/kimi-bridge"
  version "@VERSION@"
  license "MIT"

  depends_on "ripgrep"

  on_macos do
    on_arm do
      url "@URL aarch64-apple-darwin@"
      sha256 "@SHA256 aarch64-apple-darwin@"
    end
    on_intel do
      url "@URL x86_64-apple-darwin@"
      sha256 "@SHA256 x86_64-apple-darwin@"
    end
  end

  on_linux do
    on_arm do
      url "@URL aarch64-unknown-linux-musl@"
      sha256 "@SHA256 aarch64-unknown-linux-musl@"
    end
    on_intel do
      url "@URL x86_64-unknown-linux-musl@"
      sha256 "@SHA256 x86_64-unknown-linux-musl@"
    end
  end

  def install
    bin.install "kimi-bridge"
    man1.install Dir["man/*.1"]
    generate_completions_from_executable(bin/"kimi-bridge", "completions")
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/kimi-bridge --version")
    assert_match "F1 BLOCKER", shell_output("#{bin}/kimi-bridge demo")
  end
end
