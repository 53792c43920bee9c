// Node's http as an origin: notes every request and answers with it.
const fs = require("node:fs");
const http = require("node:http");

const [port, path] = process.argv.slice(2);
const record = fs.openSync(path, "a");

http
  .createServer((request, response) => {
    let length = 0;
    request.on("data", (piece) => (length += piece.length));
    request.on("end", () => {
      const seen = `${request.method} ${request.url} HTTP/1.1\t${length}\n`;
      fs.writeSync(record, seen);
      response.setHeader("X-Body-Length", length);
      response.end(seen);
    });
  })
  .listen(Number(port), "127.0.0.1");
