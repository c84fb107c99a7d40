// Answers with what it was asked, as JSON.
const { createServer } = require("node:http");

createServer((request, response) => {
  if (request.url === "/healthz") {
    response.end("ok\n");
    return;
  }
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ path: request.url, node: process.version }) + "\n");
}).listen(3000, "0.0.0.0", () => console.log("listening on 3000"));

process.on("SIGTERM", () => process.exit(0));
