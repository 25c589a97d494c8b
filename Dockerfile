# The page with the shipped weights, on the CPU.
#   docker build --tag captioner .
#   docker run --read-only --tmpfs /tmp --publish 127.0.0.1:7860:7860 captioner
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app

COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY captioner captioner
COPY weights weights
COPY data/samples data/samples
RUN pip install --constraint requirements.lock --editable '.[app,mcp]' \
    && useradd --system --uid 10001 --no-create-home captioner

USER 10001

EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]

ENTRYPOINT ["captioner", "serve", "--host", "0.0.0.0", "--port", "7860"]
