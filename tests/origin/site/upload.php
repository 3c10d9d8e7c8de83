<?php

declare(strict_types=1);

// Reads a body of any size as a stream and says what arrived: its length and its SHA-256.

$hash = hash_init('sha256');
$bytes = 0;
$body = fopen('php://input', 'rb');
while (!feof($body)) {
    $piece = fread($body, 65536);
    if ($piece === false) {
        break;
    }
    $bytes += strlen($piece);
    hash_update($hash, $piece);
}
header('Content-Type: application/json; charset=utf-8');
echo json_encode([
    'method' => $_SERVER['REQUEST_METHOD'],
    'bytes' => $bytes,
    'sha256' => hash_final($hash),
    'content_length' => $_SERVER['CONTENT_LENGTH'] ?? null,
    'transfer_encoding' => $_SERVER['HTTP_TRANSFER_ENCODING'] ?? null,
]);
